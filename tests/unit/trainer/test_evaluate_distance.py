"""The SOCRATES measures against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from remote.trainer.evaluate.distance import (
    answer,
    by_study,
    correlation,
    improvement,
    improvement_interval,
    of_answers,
    wasserstein,
    worst,
)

PEOPLE = (1, 2, 2, 3, 5)


@pytest.mark.parametrize(
    ("human", "predicted", "low", "high", "expected"),
    [
        # Sorted they are 2, 1, 2, 2 and 0 apart: 7 / 5 of a scale that is 4 long.
        (PEOPLE, (3, 3, 4, 5, 5), 1, 5, 0.35),
        (PEOPLE, (5, 6, 6, 7, 9), 1, 5, 1.0),
        (PEOPLE, PEOPLE, 1, 5, 0.0),
        (PEOPLE, (5, 3, 2, 1, 2), 1, 5, 0.0),
        ((1, 5), (3,), 1, 5, 0.5),
        # Half of 0 moves to 2, half to 4; 1 of 2 people each: (2 + 4) / 2 / 10.
        ((0,), (2, 4), 0, 10, 0.3),
        # Two thirds stay at 0, a third goes to 1; of the other half is at 1: 1/2 - 1/3.
        ((0, 0, 1), (0, 1), 0, 1, 1 / 6),
        ((-1.5, 0.5), (0.5, 0.5), -1.5, 0.5, 0.5),
    ],
    ids=["document", "shifted", "same", "order", "middle", "sizes", "weights", "negative"],
)
def test_wasserstein(
    human: Sequence[float], predicted: Sequence[float], low: float, high: float, expected: float
) -> None:
    assert wasserstein(human, predicted, low=low, high=high) == pytest.approx(expected, abs=1e-12)
    assert wasserstein(predicted, human, low=low, high=high) == pytest.approx(expected, abs=1e-12)


def test_wasserstein_of_equally_many_is_the_mean_of_sorted_differences() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        one, other = generator.integers(0, 11, (2, 30))
        expected = np.abs(np.sort(one) - np.sort(other)).mean() / 10
        assert wasserstein(one.tolist(), other.tolist(), low=0, high=10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("human", "predicted", "high"),
    [((), (1,), 5), ((1,), (), 5), ((1,), (1,), 1)],
    ids=["no-people", "no-answers", "no-scale"],
)
def test_wasserstein_of_nothing(
    human: Sequence[float], predicted: Sequence[float], high: float
) -> None:
    with pytest.raises(ValueError, match="needed"):
        wasserstein(human, predicted, low=1, high=high)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", 4),
        ("Response: 2", 2),
        ("I would say 3.5, perhaps 4", 3.5),
        ("$1,250,000.50", 1250000.5),
        ("-2", -2),
        ("\u22123", -3),
        ("+7%", 7),
        ("3 out of 5", 3),
        ("(5)", 5),
        ("4.", 4),
        ("no idea", None),
        ("", None),
        ("Q3 was hard", None),
        ("v1.2", None),
    ],
)
def test_answers(text: str, expected: float | None) -> None:
    assert answer(text) == expected


@pytest.mark.parametrize(
    ("human", "given", "expected"),
    [
        (PEOPLE, (3, 3, 4, 5, 5), 0.35),
        # At each person's own far end they would be 5, 5, 1, 1, which is perfect.
        ((1, 1, 5, 5), (None,) * 4, 0.5),
        # All at 5, which is 4, 3, 3, 2 and 0 away; all at 1 it would be 8 / 5.
        (PEOPLE, (None,) * 5, 12 / 5 / 4),
        ((4, 5, 5), (None,) * 3, 11 / 3 / 4),
        # With two 1s the others are wrong at 1 and would be perfect at 5.
        ((1, 1, 5, 5), (1, None, 1, None), 0.5),
    ],
    ids=["all-there", "two-ends", "high", "low", "some"],
)
def test_no_answer_is_never_better_than_one(
    human: Sequence[float], given: Sequence[float | None], expected: float
) -> None:
    assert of_answers(human, given, low=1, high=5) == pytest.approx(expected)


@pytest.mark.parametrize(("response", "expected"), [(1, 5), (5, 1), (2, 5), (4, 1), (3, 5)])
def test_the_worst_answer_is_the_far_end(response: float, expected: float) -> None:
    assert worst(response, low=1, high=5) == expected


@pytest.mark.parametrize(
    ("human", "predicted", "expected"),
    [
        ((1, 2, 3), (2, 4, 6), 1.0),
        ((1, 2, 3), (3, 2, 1), -1.0),
        ((1, 2, 3, 4), (1, 3, 2, 4), 0.8),
        ((1, 2, 3), (2, 2, 2), None),
        ((2, 2), (1, 2), None),
        ((1,), (1,), None),
    ],
)
def test_correlation(
    human: Sequence[float], predicted: Sequence[float], expected: float | None
) -> None:
    found = correlation(human, predicted)
    assert found == (None if expected is None else pytest.approx(expected))


def test_studies_count_alike_however_many_cells_they_have() -> None:
    assert by_study(["a", "a", "a", "b"], [0.1, 0.2, 0.3, 0.6]) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no cells"):
        by_study([], [])


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(0.4, 0.37, 0.075), (0.2, 0.3, -0.5), (0.2, 0.0, 1.0)]
)
def test_improvement(before: float, after: float, expected: float) -> None:
    assert improvement(before, after) == pytest.approx(expected)


def test_improvement_on_nothing_is_not_defined() -> None:
    assert math.isnan(improvement(0.0, 0.1))


def test_the_interval_of_a_steady_gain_has_no_width() -> None:
    studies, before = ["a", "b", "b", "c"], [0.2, 0.4, 0.1, 0.3]
    after = [0.9 * value for value in before]
    found = improvement_interval(studies, before, after, resamples=200, seed=1)
    assert found == pytest.approx((0.1, 0.1))


def test_the_interval_of_two_cells_is_what_can_be_drawn() -> None:
    """One study: twice the first (gain 1), twice the second (gain 0) or both (gain 1/2), the
    last half of the time; 5 % of the draws are below 0 and above 1 at neither end."""
    found = improvement_interval(["a", "a"], [0.2, 0.2], [0.0, 0.2], resamples=4000, seed=3)
    assert found == pytest.approx((0.0, 1.0))
    draws = improvement_interval(
        ["a", "a"], [0.2, 0.2], [0.0, 0.2], resamples=4000, seed=3, level=0.4
    )
    assert draws == pytest.approx((0.5, 0.5))


def test_the_interval_is_the_same_for_a_seed_and_undefined_at_a_perfect_baseline() -> None:
    cells = (["a", "b", "c"], [0.2, 0.3, 0.1], [0.1, 0.3, 0.2])
    one, again = (improvement_interval(*cells, resamples=50, seed=7) for _ in range(2))
    assert one == again
    low, high = improvement_interval(["a", "b"], [0.0, 0.1], [0.0, 0.1], resamples=50, seed=7)
    assert math.isnan(low)
    assert math.isnan(high)
