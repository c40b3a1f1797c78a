"""One point of a training curve, whatever program told it and however."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

MOST_VALUES = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """What a trainer told of one step. None is *not told*; NaN and infinities are kept as such.

    `step` is None while nobody said it. `at` is the time of whoever stamped it: differences
    within one source are meant, never its distance from now. `tokens_per_s` counts all ranks, but
    for verl, which divides by the GPUs. `values` holds the rest by the trainer's own names."""

    source: str
    step: int | None
    at: datetime | None = None
    offset: int | None = None
    loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    tokens: float | None = None
    tokens_per_s: float | None = None
    epoch: float | None = None
    max_steps: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)

    def get(self, metric: str) -> float | None:
        """A metric by its name here or by the trainer's own name for it."""
        if metric in _NUMBERS:
            value: float | None = getattr(self, metric)
            return value
        return self.values.get(metric)


_NUMBERS = ("loss", "grad_norm", "learning_rate", "tokens", "tokens_per_s", "epoch")


def merge(*sources: Iterable[Sample]) -> list[Sample]:
    """The curve of all sources, the better source first: what it does not tell of a step is taken
    from the next one. Samples without a step come last, in the order they were told.

    Within a source a step that comes again replaces what was told from there on: the trainer went
    back to a checkpoint, and the steps after that one never happened."""
    found: dict[int, Sample] = {}
    loose: list[Sample] = []
    for source in sources:
        for sample in effective(source):
            if sample.step is None:
                loose.append(sample)
            elif sample.step in found:
                found[sample.step] = filled(found[sample.step], sample)
            else:
                found[sample.step] = sample
    return [found[step] for step in sorted(found)] + loose


def effective(samples: Iterable[Sample]) -> list[Sample]:
    """The samples of one source without those that a later attempt trained again."""
    kept: list[Sample] = []
    for sample in samples:
        if sample.step is not None:
            while kept and kept[-1].step is not None and kept[-1].step > sample.step:
                kept.pop()
            if kept and kept[-1].step == sample.step:
                kept[-1] = filled(sample, kept[-1])
                continue
        kept.append(sample)
    return kept


def filled(better: Sample, other: Sample) -> Sample:
    """`better`, with what it does not tell taken from `other`."""
    missing = {
        each.name: getattr(other, each.name)
        for each in fields(Sample)
        if each.name != "values" and getattr(better, each.name) is None
    }
    values = {**other.values, **better.values} if other.values else better.values
    return replace(better, **missing, values=values)
