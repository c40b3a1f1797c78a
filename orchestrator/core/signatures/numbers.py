"""Numbers as trainers print them, and when one of them means that training diverged."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.core.signatures.samples import Sample

# Every part is bounded: a box may print a million digits, and matching them must not take minutes.
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,30})"
NUMBER = (
    rf"[-+]?(?:(?:{_DIGITS}(?:\.\d{{0,30}})?|\.\d{{1,30}})(?:[eE][-+]?\d{{1,4}})?"
    r"|[nN]a[nN]|[iI]nf(?:inity)?)"
)
_WRAPPED = re.compile(r"(?:np\.float\d+|tensor)\(([^,)]*)[^)]*\)")
SURE_LOSS = 0.01
LEFT_OUT = 3  # updates in a row that a healthy run may leave out
MOST = 1e100  # no GPU computes with such a number: an infinity that was printed as digits
# Not `value_loss`, which is that of a critic that is trained.
_EVALUATION = re.compile(r"(?:eval(?:uation)?|val(?:id(?:ation)?)?|test)(?![a-z])")


def number(value: Any) -> float | None:
    """A number, or text that is one: quoted, with commas, as `np.float64(…)`, `nan` or `inf`.

    None for everything else, booleans and integers beyond a float included."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _float(value)
    if not isinstance(value, str) or len(value) > 80:
        return None
    text = value.strip().strip("'\"")
    wrapped = _WRAPPED.fullmatch(text)
    text = wrapped[1] if wrapped else text
    return None if "_" in text else _float(text.replace(",", ""))


def whole(value: Any) -> int | None:
    """A step: a whole number that is not negative."""
    found = number(value)
    if found is None or not math.isfinite(found) or found < 0 or found != int(found):
        return None
    return int(found) if found < 2**53 else None


@dataclass(frozen=True, slots=True)
class NotANumber:
    """`sample` is the first that tells it. Not `sure`: one more sample will show whether an update
    was left out, or all that was learnt is lost."""

    sample: Sample
    why: str
    sure: bool


def why_nan(sample: Sample, before: float | None) -> str | None:
    """Why this sample looks like NaN, or None; `before` is the last loss that was told.

    transformers prints the loss of a NaN step as 0 unless `logging_nan_inf_filter` is off, and
    only the gradient norm tells (measured on 5.23)."""
    for name, value in _watched(sample):
        if not math.isfinite(value):
            return f"{name} is {value}"
    if _is_filtered(sample, before):
        return f"loss is exactly 0 after {before:.4g}: a NaN that the trainer filtered"
    return None


def look_for_nan(samples: Iterable[Sample], *, ended: bool = False) -> NotANumber | None:
    """The first NaN, if training did not go on from it.

    After weights that are NaN nothing is a number any more. A gradient alone that is none, or a
    loss of 0, may be an update that was left out: verl and fp16 do so and go on, so what is finite
    again was none. Sure are a loss that is no number, both signs at once, more than LEFT_OUT in a
    row, and whatever an `ended` run ended with."""
    row: list[tuple[Sample, str]] = []
    before: float | None = None
    for sample in samples:
        why = why_nan(sample, before)
        if why:
            row.append((sample, why))
        elif any(True for _ in _watched(sample)):
            row.clear()
        if why and (_is_lost(sample) or len(row) > LEFT_OUT):
            return NotANumber(*row[0], sure=True)
        before = sample.loss or before
    return NotANumber(*row[0], sure=ended) if row else None


def evaluation_nan(sample: Sample) -> str | None:
    """The name of an evaluation's loss that is no number: it says nothing of the weights."""
    return next((name for name, value in _losses(sample, True) if not math.isfinite(value)), None)


def _is_lost(sample: Sample) -> bool:
    """A loss that is no number; or the two signs of a NaN that was filtered."""
    told = list(_watched(sample))
    if any(not math.isfinite(value) for name, value in told if not name.endswith("norm")):
        return True
    return sample.loss == 0 and any(not math.isfinite(value) for _, value in told)


def _is_filtered(sample: Sample, before: float | None) -> bool:
    """A gradient that is a number, and not 0, is that of a loss that is one: of preferences that
    are learnt it may well be 0, when four digits are printed."""
    if sample.loss != 0 or before is None or before <= SURE_LOSS:
        return False
    return not sample.grad_norm


def _watched(sample: Sample) -> Iterable[tuple[str, float]]:
    """Losses of training and gradient norms under whatever name."""
    if sample.grad_norm is not None:
        yield "grad_norm", sample.grad_norm
    yield from _losses(sample, False)
    for name, value in sample.values.items():
        if name.endswith("grad_norm"):
            yield name, value


def _losses(sample: Sample, evaluated: bool) -> Iterable[tuple[str, float]]:
    if sample.loss is not None and not evaluated:
        yield "loss", sample.loss
    for name, value in sample.values.items():
        if name.endswith("loss") and bool(_EVALUATION.match(name)) is evaluated:
            yield name, value


def _float(value: Any) -> float | None:
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return math.copysign(math.inf, found) if abs(found) > MOST else found
