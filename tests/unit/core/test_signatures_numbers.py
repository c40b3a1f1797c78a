"""Numbers as they are printed, and the truth table of NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.core.signatures.numbers import (
    LEFT_OUT,
    evaluation_nan,
    look_for_nan,
    number,
    whole,
    why_nan,
)
from orchestrator.core.signatures.samples import Sample

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.456", 2.456),
        ("'2.456'", 2.456),
        ("1e-05", 1e-5),
        ("+4.5E-06", 4.5e-6),
        ("1,310,000", 1_310_000.0),
        ("np.float64(0.61)", 0.61),
        ("tensor(0.5, device='cuda:0')", 0.5),
        ("inf", INF),
        ("-inf", -INF),
        ("Infinity", INF),
        (3, 3.0),
        (0.5, 0.5),
        ("", None),
        ("1_000", None),
        ("x", None),
        (True, None),
        (None, None),
        ([1], None),
        (10**400, None),
        ("9" * 200, None),
        ("1e200", INF),  # no GPU has such a number, and its square would break every estimator
        ("-1e200", -INF),
        ("3.4e38", 3.4e38),
    ],
    ids=str,
)
def test_numbers(text: Any, value: float | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["nan", "NaN", "'nan'", "np.float32(nan)", NAN], ids=str)
def test_nan_is_a_number_too(text: Any) -> None:
    found = number(text)
    assert found is not None and math.isnan(found)


@pytest.mark.parametrize(
    ("value", "step"),
    [(5, 5), ("12", 12), (3.0, 3), (0, 0), (-1, None), (1.5, None), (NAN, None), (2**60, None)],
    ids=str,
)
def test_a_step_is_whole(value: Any, step: int | None) -> None:
    assert whole(value) == step


@pytest.mark.parametrize(
    ("loss", "grad_norm", "before", "nan"),
    [
        (1.2, 0.5, 1.3, False),
        (NAN, 0.5, 1.3, True),
        (INF, 0.5, 1.3, True),
        (-INF, None, 1.3, True),
        (1.2, NAN, 1.3, True),
        (1.2, INF, 1.3, True),
        (0.0, NAN, 1.3, True),  # what transformers prints of a NaN step
        (0.0, None, 1.3, True),
        (0.0, 0.5, 1.3, False),  # the gradient of a NaN is none: of pairs that are learnt it is
        (0.0, 0.0, 1.3, True),
        (0.0, 0.5, 0.005, False),
        (0.0, 0.5, None, False),
        (0.001, 0.5, 1.3, False),
        (None, 0.5, 1.3, False),
        (None, NAN, None, True),
        (None, None, None, False),
    ],
)
def test_the_truth_table(
    loss: float | None, grad_norm: float | None, before: float | None, nan: bool
) -> None:
    why = why_nan(Sample("x", 1, loss=loss, grad_norm=grad_norm), before)
    assert (why is not None) is nan


@pytest.mark.parametrize(
    ("name", "nan"),
    [
        ("actor/pg_loss", True),
        ("critic/grad_norm", True),
        ("eval_loss", False),
        ("val-core/loss", False),
        ("val/rouge", False),
        ("validation_loss", False),
        ("value_loss", True),
    ],
)
def test_other_losses_are_watched_and_ratios_are_not(name: str, nan: bool) -> None:
    assert (why_nan(Sample("x", 1, values={name: NAN}), None) is not None) is nan


def told(*values: tuple[float | None, float | None]) -> list[Sample]:
    """Losses and gradient norms, from step 1 on."""
    return [Sample("x", n, loss=a, grad_norm=b) for n, (a, b) in enumerate(values, start=1)]


GOOD, LEFT, LOST = (1.2, 1.0), (1.2, NAN), (0.0, NAN)
CURVES: list[tuple[str, list[Sample], bool, tuple[int | None, bool] | None]] = [
    ("healthy", told(GOOD, GOOD), True, None),
    ("loss", told(GOOD, (NAN, None)), False, (2, True)),
    ("filtered", told(GOOD, LOST), False, (2, True)),
    ("filtered from the first step on", told(LOST), False, (1, True)),
    ("an update that fp16 left out", told(LEFT, GOOD, GOOD), True, None),
    ("one that may have been", told(GOOD, LEFT), False, (2, False)),
    ("and never came back", told(GOOD, LEFT), True, (2, True)),
    ("within a logging interval", told(GOOD, LEFT, LOST), False, (2, True)),
    ("as many as may be", told(GOOD, *[LEFT] * LEFT_OUT, GOOD), True, None),
    ("one more", told(GOOD, *[LEFT] * (LEFT_OUT + 1)), False, (2, True)),
    ("0 without a gradient", told((1.3, None), (0.0, None)), False, (2, False)),
    ("0 for ever", told((1.3, None), *[(0.0, None)] * 4), False, (2, True)),
    ("0 once", told((1.3, None), (0.0, None), (0.02, None)), True, None),
    ("pairs that are learnt", told((0.02, 0.1), (0.0, 0.001), (0.03, 0.1)), True, None),
    ("a lost one is not mended", told((NAN, None), GOOD), True, (1, True)),
]


@pytest.mark.parametrize(
    ("samples", "ended", "found"), [row[1:] for row in CURVES], ids=[row[0] for row in CURVES]
)
def test_a_nan_is_what_training_does_not_come_back_from(
    samples: list[Sample], ended: bool, found: tuple[int | None, bool] | None
) -> None:
    seen = look_for_nan(samples, ended=ended)
    assert (seen and (seen.sample.step, seen.sure)) == found


def test_the_loss_before_is_the_last_that_was_told() -> None:
    samples = [Sample("x", 1, loss=1.3), Sample("x", 2, values={"a": 1.0}), Sample("x", 3, loss=0)]
    found = look_for_nan(samples, ended=True)
    assert found and found.sample.step == 3 and "filtered" in found.why


def test_an_update_that_verl_leaves_out_is_no_end() -> None:
    skipped = Sample("verl", 2, values={"critic/grad_norm": INF, "critic/d_loss": 0.6})
    assert look_for_nan([*told(GOOD), skipped, *told(GOOD)]) is None


def test_an_evaluation_that_is_none_is_named() -> None:
    assert evaluation_nan(Sample("x", 1, loss=1.0, values={"eval_loss": NAN})) == "eval_loss"
    assert evaluation_nan(Sample("x", 1, loss=NAN, values={"eval_loss": 1.0})) is None
