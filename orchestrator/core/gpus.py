"""Our names for GPUs: `A100-80GB-SXM`, `H100-80GB-PCIe`, `RTX4090`. A job may write less than that,
in any case: A100, a100-sxm, H100-80GB, 4090."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from orchestrator.core.offer import ANY_GPU

# What vendors write (reference/runpod.md §1.5, reference/thunder.md §1.3) where a rule would miss.
_VENDORS: Mapping[str, str] = {
    "NVIDIA A100 80GB PCIe": "A100-80GB-PCIe",
    "NVIDIA A100-SXM4-80GB": "A100-80GB-SXM",
    "NVIDIA A100-SXM4-40GB": "A100-40GB-SXM",
    "NVIDIA H100 80GB HBM3": "H100-80GB-SXM",
    "NVIDIA H100 PCIe": "H100-80GB-PCIe",
    "NVIDIA H100 NVL": "H100-94GB-NVL",
    "a100xl": "A100-80GB",
    "a100": "A100-40GB",
    "h100": "H100-80GB",
    "a6000": "RTXA6000",
}
_NOISE = {"NVIDIA", "GEFORCE", "TESLA", "AMD", "GENERATION"}


def canonical(vendor: str) -> str:
    """Our name for a vendor's."""
    known = _VENDORS.get(vendor)
    if known:
        return known
    words = [word for word in vendor.split() if word.upper() not in _NOISE]
    text = "-".join(words)
    text = re.sub(r"^RTX-(?=A?\d)", "RTX", text, flags=re.IGNORECASE)
    return text.upper() if text.islower() else text


def fits(wanted: str, offered: str) -> bool:
    """Whether a GPU named `offered` is what `wanted` asks for: every word of it is there, in
    order, and the first is its first. A slice of a GPU (MIG) only when that is asked for."""
    have = _words(offered)
    sliced = "MIG" in have
    if wanted == ANY_GPU:
        return not sliced
    want = _words(wanted)
    if sliced != ("MIG" in want) or not want or not have or not _same(want[0], have[0]):
        return False
    rest = iter(have)
    return all(any(_same(word, other) for other in rest) for word in want)


def suggest(wanted: str, known: Iterable[str]) -> list[str]:
    """Known names that look like `wanted`, best first."""
    by_look = {name.lower(): name for name in sorted(known)}
    close = difflib.get_close_matches(wanted.lower(), by_look, n=3, cutoff=0.5)
    return [by_look[each] for each in close]


def _words(name: str) -> list[str]:
    text = re.sub(r"^RTX[-_ ]?(?=A?\d)", "RTX", name.upper())
    return [word for word in re.findall(r"[A-Z0-9.]+", text) if word not in _NOISE]


def _same(wanted: str, offered: str) -> bool:
    return offered in (wanted, f"RTX{wanted}")
