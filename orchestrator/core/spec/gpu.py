"""What `resources.gpu` says: a GPU type, or the word cpu, and how many."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.core.spec.tokens import show

_SYNTAX = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.+-]*)(?::(?P<count>[1-9][0-9]{0,3}))?")


@dataclass(frozen=True)
class GpuNeed:
    """One alternative: `count` GPUs of type `name`; `cpu` means ranks without a GPU."""

    name: str
    count: int

    @property
    def is_cpu(self) -> bool:
        return self.name == "cpu"

    def __str__(self) -> str:
        return f"{self.name}:{self.count}"


def parse_gpu(text: str) -> GpuNeed:
    """Read `A100-80GB:4`, `H100` (one) or `cpu:2`; ValueError says what is wrong."""
    match = _SYNTAX.fullmatch(text)
    if match is None:
        raise ValueError(f"write type:count, such as A100-80GB:4 or cpu:2, not {show(text)}")
    name = "cpu" if match["name"].lower() == "cpu" else match["name"]
    return GpuNeed(name=name, count=int(match["count"] or 1))


def check_gpu(text: str) -> str:
    """The normal form `type:count` of `text`, else ValueError."""
    return str(parse_gpu(text))
