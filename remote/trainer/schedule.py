"""The learning rate as a pure function of the step: nothing to save, nothing to restore.

The shapes and their names are transformers' own; step 0 is the first update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Shape = Callable[[float, Mapping[str, float]], float]


@dataclass(frozen=True)
class Schedule:
    """`horizon` is the number of steps over which the rate falls; past it stays the last value."""

    name: str
    peak: float
    warmup_steps: int
    horizon: int
    options: Mapping[str, float] = field(default_factory=dict)

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0."""
        if self.name == "constant":  # as it is for transformers; constant_with_warmup warms up
            return self.peak
        if step < self.warmup_steps:
            return self.peak * step / max(1, self.warmup_steps)
        if self.name == "inverse_sqrt":
            return self.peak * _inverse_sqrt(step, self.warmup_steps, self.options)
        left = max(1, self.horizon - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / left)
        options = {"floor": self._floor(), **self.options}
        return self.peak * SHAPES[self.name](progress, options)

    def _floor(self) -> float:
        if self.name == "polynomial":
            return self.options.get("lr_end", 1e-7) / self.peak if self.peak else 0.0
        if "min_lr" in self.options:
            return self.options["min_lr"] / self.peak if self.peak else 0.0
        return self.options.get("min_lr_rate", 0.0)


def _cosine(progress: float, options: Mapping[str, float]) -> float:
    cycles = options.get("num_cycles", 0.5)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * cycles * 2 * progress)))


def _cosine_with_floor(progress: float, options: Mapping[str, float]) -> float:
    return _cosine(progress, options) * (1 - options["floor"]) + options["floor"]


def _polynomial(progress: float, options: Mapping[str, float]) -> float:
    falling = (1 - progress) ** options.get("power", 1.0)
    return float(falling * (1 - options["floor"]) + options["floor"])


def _inverse_sqrt(step: int, warmup: int, options: Mapping[str, float]) -> float:
    timescale = options.get("timescale") or warmup or 10_000
    return 1 / math.sqrt((step + timescale - warmup) / timescale)


SHAPES: dict[str, Shape] = {
    "linear": lambda progress, _: 1 - progress,
    "cosine": _cosine,
    "cosine_with_min_lr": _cosine_with_floor,
    "polynomial": _polynomial,
    "constant": lambda *_: 1.0,
    "constant_with_warmup": lambda *_: 1.0,
    "inverse_sqrt": lambda *_: 1.0,
}
