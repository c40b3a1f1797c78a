"""Whether a disk will do for the checkpoints that are still to come, while a run goes on. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.core.keep import Keep
from orchestrator.core.run import DiskLow, Run, Seal

# So many checkpoints more have to fit: the next is written before an old one goes.
AHEAD = 2
# A disk that was low is so much better before that is told.
EASED = 0.9


@dataclass(frozen=True)
class Saves:
    """What the last saves were like: bytes of one, steps and seconds between two, and how many
    are to come; None is unknown."""

    size_bytes: int
    every_steps: int | None = None
    interval_s: float | None = None
    left: int | None = None


def saves_of(run: Run) -> Saves | None:
    """From the seals of the newest attempt that left some; None before the first."""
    attempts = {seal.attempt for seal in run.seals if not seal.final}
    if not attempts:
        return None
    seals = [seal for seal in run.seals if seal.attempt == max(attempts) and not seal.final][-5:]
    newest = seals[-1]
    every, interval = _steps_between(seals), _seconds_between(seals)
    left = None
    if every and newest.max_steps is not None and newest.step is not None:
        left = max(0, math.ceil((newest.max_steps - newest.step) / every))
    return Saves(newest.size_bytes, every, interval, left)


def outlook(
    free_bytes: int, saves: Saves, growth_bytes: float, now: datetime, *, was_low: bool = False
) -> DiskLow | None:
    """None while the disk will do: `AHEAD` more fit, and what each save adds for good
    (`growth_bytes`) fits until the last."""
    usable = free_bytes * EASED if was_low else free_bytes
    ahead = AHEAD * saves.size_bytes
    needed = ahead + round(growth_bytes * (saves.left or 0))
    if saves.left == 0 or usable >= needed:
        return None
    grows = growth_bytes if usable >= ahead else max(growth_bytes, saves.size_bytes)
    fit = free_bytes // grows if grows > 0 else None
    full_at = None
    if fit is not None and saves.interval_s is not None:
        full_at = now + timedelta(seconds=fit * saves.interval_s)
    return DiskLow(free_bytes, needed, full_at)


def growth_here(saves: Saves, keep: Keep | None) -> float:
    """How much a save adds to the mirror for good, when nothing is shared between checkpoints."""
    if keep is None:
        return float(saves.size_bytes)
    if keep.every is None or saves.every_steps is None:
        return 0.0
    return saves.size_bytes * min(1.0, saves.every_steps / keep.every)


def growth_seen(told: Sequence[tuple[int, int]]) -> float:
    """How much a save takes from a disk for good, from (saves so far, free bytes) over time; 0
    while it cannot be told."""
    if not told or told[-1][0] - told[0][0] < AHEAD + 1:
        return 0.0
    return max(0.0, (told[0][1] - told[-1][1]) / (told[-1][0] - told[0][0]))


def _steps_between(seals: Sequence[Seal]) -> int | None:
    steps = sorted({seal.step for seal in seals if seal.step is not None})
    if len(steps) < 2:
        return None
    return max(1, round((steps[-1] - steps[0]) / (len(steps) - 1)))


def _seconds_between(seals: Sequence[Seal]) -> float | None:
    if len(seals) < 2:
        return None
    return (seals[-1].sealed_at - seals[0].sealed_at).total_seconds() / (len(seals) - 1)
