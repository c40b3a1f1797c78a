"""How much of the hardware's peak a run uses: the usual formula, and the peaks of known GPUs."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

# Dense bf16 FLOP/s, from the vendor's data sheets.
PEAKS = {
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A40": 150e12,
    "A6000": 155e12,
    "RTX 4090": 165e12,
    "L4": 121e12,
}
_LESS = re.compile(r"\b(MIG|Laptop|Max-Q|D)\b")  # a part of that GPU, or a smaller one


def per_token(module: nn.Module, config: Any, *, length: float) -> float:
    """Useful FLOPs a trained token costs: 6 per weight that is trained, 4 per weight that is
    only passed through, and causal attention over `length` tokens."""
    trained = all(each.requires_grad for each in module.parameters())
    weights = sum(
        int(getattr(each, "ds_numel", each.numel()))
        for name, each in module.named_parameters()
        if "embed_tokens" not in name and "lora_" not in name
    )
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    attention = 12 * layers * width * length / 2
    return (6 if trained else 4) * weights + attention


def peak() -> float | None:
    """This rank's GPU's peak; None on a CPU and for a GPU that is not known."""
    if not torch.cuda.is_available():
        return None
    return peak_of(torch.cuda.get_device_name())


def peak_of(name: str) -> float | None:
    """The peak of the GPU that CUDA calls `name`; None when it is not known."""
    if _LESS.search(name):
        return None
    words = ((known, rf"\b{re.escape(known)}\b") for known in PEAKS)
    return next((PEAKS[known] for known, word in words if re.search(word, name)), None)
