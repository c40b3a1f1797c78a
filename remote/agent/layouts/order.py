"""Which files of a checkpoint are fetched first: what an evaluation and a resume begin with."""

from __future__ import annotations

import re
from typing import Iterable, List, Tuple

_OPTIMIZER = re.compile(r"(?:^|[/_.-])(?:optim|optimizer|recipe_state)(?:[/_.-]|$)|optim_states")
_WEIGHTS = re.compile(
    r"\.safetensors$|(?:^|/)(?:pytorch_model|adapter_model|model)[^/]*\.(?:bin|pt|pth)$"
    r"|model_states\.pt$|\.ckpt$|(?:^|/)pytorch_model_fsdp"
)
_SMALL = re.compile(r"\.(?:json|txt|yaml|yml|jinja|model|py|md)$|(?:^|/)(?:latest|COMPLETED)$")


def fetch_order(paths: Iterable[str]) -> List[str]:
    """Configuration and state, weights and adapters, the rest, and optimizer shards last."""
    return sorted(paths, key=_place)


def _place(path: str) -> Tuple[int, str]:
    if _OPTIMIZER.search(path):
        return 3, path
    if _SMALL.search(path):
        return 0, path
    return (1 if _WEIGHTS.search(path) else 2), path
