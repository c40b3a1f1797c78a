"""Estimators on a training curve. A single step proves nothing: about half of the consecutive
steps of a healthy run rise (measured on real logs), so everything here is a mean, a median or a
fit over a window of *steps*, whatever the logging interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.core.signatures.samples import Sample

Point = tuple[int, float]
SPAN = 20
LEAST_FITTED = 8
_MAD_TO_SIGMA = 1.4826
_LEAST_SPREAD = 0.01  # of the median: a curve without noise has no spikes of a rounding error


@dataclass(frozen=True)
class Drop:
    """From the mean of the first steps to the mean of the last: `percent` positive is downwards,
    `error_percent` its standard error by the spread within both windows."""

    first: float
    last: float
    percent: float
    error_percent: float
    from_step: int
    to_step: int


def points(samples: Iterable[Sample], metric: str = "loss") -> list[Point]:
    """Step and value wherever both are told and the value is finite."""
    found = ((sample.step, sample.get(metric)) for sample in samples)
    return [(s, v) for s, v in found if s is not None and v is not None and math.isfinite(v)]


def between(curve: Sequence[Point], low: int, high: int) -> list[Point]:
    """The points above `low`, up to and with `high`."""
    return [point for point in curve if low < point[0] <= high]


def spacing(curve: Sequence[Point]) -> int:
    """The usual number of steps between two points."""
    gaps = [after[0] - before[0] for before, after in pairwise(curve)]
    return int(statistics.median(gaps)) if gaps else 1


def drop(curve: Sequence[Point], *, start: int = 0, span: int = SPAN) -> Drop | None:
    """How far the curve fell from `start`, where its phase began, to its last point.

    None while the two windows overlap. A window is `span` steps, or two points where the trainer
    logs less often."""
    if len(curve) < 2:
        return None
    width = max(span, 2 * spacing(curve))
    end = curve[-1][0]
    if end - width < start + width:
        return None
    first = [value for _, value in between(curve, start, start + width)]
    last = [value for _, value in between(curve, end - width, end)]
    if not first or not last or statistics.fmean(first) <= 0:
        return None
    before, after = statistics.fmean(first), statistics.fmean(last)
    error = math.sqrt(_variance(first) / len(first) + _variance(last) / len(last))
    percent = 100 * (before - after) / before
    return Drop(before, after, percent, 100 * error / before, start, end)


def slope(curve: Sequence[Point]) -> float | None:
    """Change a step of the straight line through the points; None with fewer than three."""
    if len(curve) < 3:
        return None
    steps = [float(step) for step, _ in curve]
    if len(set(steps)) < 2:
        return None
    return statistics.linear_regression(steps, [value for _, value in curve]).slope


def surety(curve: Sequence[Point]) -> float | None:
    """How many of its own standard errors the fitted line falls: every point speaks, where a
    comparison of the two ends hears a few. None with too few points to know."""
    fitted = slope(curve)
    if fitted is None or len(curve) < LEAST_FITTED:
        return None
    middle = statistics.fmean(step for step, _ in curve)
    mean = statistics.fmean(value for _, value in curve)
    rest = sum((value - mean - fitted * (step - middle)) ** 2 for step, value in curve)
    width = sum((step - middle) ** 2 for step, _ in curve)
    error = math.sqrt(rest / (len(curve) - 2) / width)
    return -fitted / error if error else math.copysign(math.inf, -fitted)


def fluctuation(curve: Sequence[Point]) -> float | None:
    """Spread around the fitted line, as a part of the mean."""
    fitted = slope(curve)
    if fitted is None:
        return None
    middle = statistics.fmean(step for step, _ in curve)
    rest = [value - fitted * (step - middle) for step, value in curve]
    mean = statistics.fmean(rest)
    return statistics.pstdev(rest) / abs(mean) if mean else None


def spikes(curve: Sequence[Point], sigmas: float = 5.0) -> list[Point]:
    """Points that many sigmas above the middle; by medians, which a spike does not move."""
    if len(curve) < 10:
        return []
    values = [value for _, value in curve]
    middle = statistics.median(values)
    spread = _MAD_TO_SIGMA * statistics.median(abs(value - middle) for value in values)
    limit = middle + sigmas * max(spread, abs(middle) * _LEAST_SPREAD)
    return [point for point in curve if point[1] > limit]


def mean_of_last(curve: Sequence[Point], span: int = SPAN) -> float | None:
    """The mean over the last `span` steps."""
    if not curve:
        return None
    end = curve[-1][0]
    return statistics.fmean(value for _, value in between(curve, end - span, end))


def step_times(samples: Sequence[Sample]) -> list[Point]:
    """Seconds a step took, at the step: from the stamps, not from a trainer's running average.

    A stamp of whole seconds is too coarse for one short step, so a point spans as many steps as
    take ten seconds."""
    found: list[Point] = []
    last: Sample | None = None
    for sample in samples:
        if sample.step is None or sample.at is None:
            continue
        if last is None or last.step is None or last.at is None or sample.step <= last.step:
            last = sample
            continue
        took = (sample.at - last.at).total_seconds()
        if took >= 10 or (took > 0 and sample.at.microsecond):
            found.append((sample.step, took / (sample.step - last.step)))
            last = sample
    return found


def median_step_s(samples: Sequence[Sample]) -> float | None:
    """The usual seconds a step; saves and evaluations in between do not move a median."""
    times = [value for _, value in step_times(samples)]
    return statistics.median(times) if times else None


def warm_up_end(samples: Sequence[Sample]) -> int | None:
    """The step at which the learning rate stops rising; None while it rises, or is not told."""
    rates = points(samples, "learning_rate")
    if len(rates) < 2:
        return None
    peak = max(value for _, value in rates)
    step = next(step for step, value in rates if value >= peak * (1 - 1e-9))
    return None if step == rates[-1][0] else step


def _variance(values: Sequence[float]) -> float:
    return statistics.variance(values) if len(values) > 1 else 0.0
