"""How far predicted answers are from people's, on the scale of the question: pure functions.

The measures of SOCRATES (arXiv 2509.05830). Both sides are scaled by the question's own ends;
scaled each by its own, a prediction that is four points off everywhere would be perfect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float] | npt.NDArray[np.float64]

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w.])[-+]?\d+(?:\.\d+)?")


def wasserstein(
    human: Sequence[float], predicted: Sequence[float], *, low: float, high: float
) -> float:
    """The first Wasserstein distance of two samples, in lengths of the scale [low, high].

    The area between their distribution functions; the samples may differ in size. Raises
    ValueError for an empty sample and a scale without length.
    """
    if not len(human) or not len(predicted) or not high > low:
        raise ValueError("two samples and a scale with some length are needed")
    one, other = np.sort(np.asarray(human, float)), np.sort(np.asarray(predicted, float))
    points = np.sort(np.concatenate([one, other]))
    below = [np.searchsorted(each, points[:-1], side="right") / len(each) for each in (one, other)]
    return float(np.sum(np.abs(below[0] - below[1]) * np.diff(points)) / (high - low))


def of_answers(
    human: Sequence[float], given: Sequence[float | None], *, low: float, high: float
) -> float:
    """The `wasserstein` of answers, of which None is none: all of those stand at one end of the
    scale, the one that makes the distance larger.

    One end for all: each at the end that is worst for its person, they could have people's very
    distribution.
    """
    known = [value for value in given if value is not None]
    missing = len(given) - len(known)
    ends = (low, high) if missing else (low,)
    return max(wasserstein(human, [*known, *[end] * missing], low=low, high=high) for end in ends)


def answer(text: str) -> float | None:
    """The first number in a text; None when there is none."""
    found = _NUMBER.search(text.replace("\u2212", "-"))
    return float(found[0].replace(",", "")) if found else None


def worst(response: float, *, low: float, high: float) -> float:
    """The end of the scale that is farther from a response: what no answer to it counts as."""
    return high if high - response >= response - low else low


def correlation(human: Numbers, predicted: Numbers) -> float | None:
    """Pearson's; None where it is not defined, as for a model that always says the same."""
    one, other = np.asarray(human, float), np.asarray(predicted, float)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    value = float(np.corrcoef(one, other)[0, 1])
    return value if math.isfinite(value) else None


def by_study(studies: Sequence[str], values: Sequence[float]) -> float:
    """The mean over studies of the mean over their cells. Raises ValueError without cells."""
    weights = np.ones((1, len(values)))
    return float(_study_means(studies, np.asarray([values], float), weights)[0, 0])


def improvement(baseline: float, checkpoint: float) -> float:
    """The share of the baseline's distance that is gone; NaN when the baseline has none."""
    return 1 - checkpoint / baseline if baseline > 0 else math.nan


def improvement_interval(
    studies: Sequence[str],
    baseline: Sequence[float],
    checkpoint: Sequence[float],
    *,
    resamples: int,
    seed: int,
    level: float = 0.9,
) -> tuple[float, float]:
    """A bootstrap interval of `improvement`: cells are drawn again with replacement, the same
    for both. NaN twice when it is not defined in some resample."""
    count = len(studies)
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    before, after = _study_means(studies, np.asarray([baseline, checkpoint], float), drawn)
    if np.any(before <= 0):
        return math.nan, math.nan
    tail = (1 - level) / 2
    low, high = np.quantile(1 - after / before, [tail, 1 - tail])
    return float(low), float(high)


def _study_means(
    studies: Sequence[str], values: npt.NDArray[np.float64], drawn: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """For each row of `values`, and of `drawn` (how often each cell counts), the mean over the
    studies of their cells' mean. A study of which nothing was drawn is left out."""
    if not len(studies):
        raise ValueError("no cells")
    names, member = np.unique(np.asarray(studies), return_inverse=True)
    belongs = (member[:, None] == np.arange(len(names))).astype(float)
    sizes = drawn @ belongs
    there = sizes > 0
    means = (drawn[None] * values[:, None]) @ belongs / np.where(there, sizes, 1)
    return (means * there).sum(-1) / there.sum(-1)
