"""Made-up curves and observations of runs: healthy ones, and ones that go wrong in one way."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.health.watch import Expect, Gpu, Watch
from orchestrator.core.signatures.lifecycle import Doing, Life
from orchestrator.core.signatures.samples import Sample

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
Curve = Callable[[int], float]


def curve(
    loss: Curve | None = None,
    *,
    steps: int = 220,
    every: int = 1,
    start: int = 0,
    step_s: float = 12.0,
    warm: int = 20,
    source: str = "test",
    **told: Any,
) -> tuple[Sample, ...]:
    """A sample every `every` steps; `told` are further fields, as numbers or functions of a step,
    and those that are none of a Sample go into its values."""
    found = []
    for step in range(start + every, start + steps + 1, every):
        fields = {name: _at(value, step) for name, value in told.items()}
        names = {"grad_norm", "tokens_per_s", "learning_rate", "offset"}
        known = {name: fields.pop(name) for name in names & set(fields)}
        known.setdefault("learning_rate", 1e-5 * min(1.0, (step - start) / warm))
        at = BEGAN + timedelta(seconds=(step - start) * step_s)
        value = loss(step) if loss else None
        found.append(Sample(source, step, at=at, loss=value, values=fields, **known))
    return tuple(found)


def falling(percent: float = 25.0, noise: float = 0.0, seed: int = 0) -> Curve:
    """From 1.2 down to so many percent less, most of it within the first hundred steps."""
    dice = random.Random(seed)
    low = percent / 100
    return lambda step: 1.2 * (1 - low * (1 - math.exp(-step / 40))) + dice.gauss(0, noise)


def flat(noise: float = 0.0, seed: int = 0, level: float = 1.2) -> Curve:
    dice = random.Random(seed)
    return lambda step: level + dice.gauss(0, noise)


def rising(noise: float = 0.0, seed: int = 0) -> Curve:
    dice = random.Random(seed)
    return lambda step: 1.2 + 0.003 * step + dice.gauss(0, noise)


def nan_at(step: int, value: float = math.nan) -> Curve:
    return lambda now: value if now >= step else 1.2 - 0.002 * now


def exploding(step: int = 90) -> Curve:
    return lambda now: 1.2 if now < step else min(1e30, 1.2 * 1.3 ** (now - step))


def gpus(
    percents: Iterable[float], *, looks: int = 12, doing: Doing = Doing.TRAIN
) -> tuple[Gpu, ...]:
    """So many looks at GPUs that are this busy."""
    return tuple(
        Gpu(index, percent, 60.0, 80.0, doing)
        for _ in range(looks)
        for index, percent in enumerate(percents)
    )


def watch(samples: tuple[Sample, ...] = (), **told: Any) -> Watch:
    """An observation of a run that trains; what `Expect` knows goes there. `gpus_seen`: how busy
    each GPU was at twelve looks."""
    told["gpus_"] = gpus(told.pop("gpus_seen", ()))
    fields = set(Expect.__dataclass_fields__)
    expect = Expect(**{name: told.pop(name) for name in list(told) if name in fields})
    told.setdefault("life", Life(Doing.TRAIN))
    return Watch(samples=samples, gpus=told.pop("gpus_"), expect=expect, **told)


def _at(value: Any, step: int) -> Any:
    return value(step) if callable(value) else value
