"""Steps out of console lines: the rows of `systems`, and the progress bars around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.core.signatures.numbers import number, whole
from orchestrator.core.signatures.reader import Line
from orchestrator.core.signatures.samples import MOST_VALUES, Sample
from orchestrator.core.signatures.systems import GENERIC, SYSTEMS, System

# A bar without words before it, that counts steps: `12%|# | 5/40 [00:00<00:01, 4.9s/it]`.
_BAR = re.compile(
    r"^\s*\d{1,3}%\|[^|]{0,300}\|\s*(\d{1,15})/(\d{1,15}) \[[^\]]{0,60}?(?:it/s|s/it)[^\]]{0,60}\]"
)
_TOTAL = re.compile(r"Total (?:optimization|training) steps\s{0,8}[=:]\s{0,8}(\d{1,15})")
_BEGINS = ("***** Running training", "Training from scratch", "Setting global step to")
_STAMP = re.compile(r"\b(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)")
_FIELDS = ("loss", "grad_norm", "learning_rate", "tokens", "tokens_per_s", "epoch")
# Ranks print a step of theirs at most this many steps after the first one did.
_LAG = 2


class Console:
    """The samples of one log, line by line. Nothing of it is lost by asking in pieces."""

    def __init__(self) -> None:
        self._total: int | None = None
        self._bar: int | None = None
        self._is_guess = True  # the total is some bar's, and no step was told under it yet
        self._is_named = False
        self._waiting: list[Sample] = []
        self._seen: dict[str, set[int]] = {}  # the newest steps of each kind of line

    @property
    def max_steps(self) -> int | None:
        """How many steps the trainer said there would be."""
        return self._total

    def feed(self, lines: Iterable[Line], *, at: datetime | None = None) -> list[Sample]:
        """The samples that these lines complete; `at` is used where a line has no time."""
        return [sample for line in lines for sample in self._one(line, at)]

    def end(self) -> list[Sample]:
        """What still waits for a progress bar that will not come: the last bar counts."""
        return self._settle(self._bar)

    def attempt(self) -> None:
        """Another attempt begins: steps may come again."""
        self._total = self._bar = None
        self._is_guess = True
        self._seen.clear()

    def _one(self, line: Line, at: datetime | None) -> Iterator[Sample]:
        text = line.text
        if any(each in text for each in _BEGINS):
            yield from self.end()
            self.attempt()
        total = _TOTAL.search(text)
        if total:
            self._total, self._is_guess = int(total[1]), False
        yield from self._read_bar(text)
        sample = parse(line, at=at)
        if sample is None or self._is_somebody_elses(sample):
            return
        if sample.step is None:
            yield from self._settle(self._bar)
            self._waiting.append(sample)
        elif not self._is_repeated(sample):
            yield replace(sample, max_steps=sample.max_steps or self._total)

    def _read_bar(self, text: str) -> Iterator[Sample]:
        """tqdm redraws its bar right after a line was printed above it, so the next bar has the
        step exactly; the one before the line lags by up to a tenth of a second of steps."""
        bar = _BAR.match(text)
        if bar is None:
            return
        done, total = int(bar[1]), int(bar[2])
        if self._is_guess and self._bar == self._total and not self._waiting:
            self._total = self._bar = None  # it is full, and was of what came before training
        self._total = self._total or total
        if total != self._total:
            return  # an evaluation's own bar
        yield from self._settle(done)
        self._bar = done

    def _settle(self, step: int | None) -> list[Sample]:
        waiting, self._waiting = self._waiting, []
        self._is_guess &= not waiting
        found = [replace(each, step=step, max_steps=self._total) for each in waiting]
        return [each for each in found if not self._is_repeated(each)]

    def _is_somebody_elses(self, sample: Sample) -> bool:
        """Where a trainer that we know tells its steps, `step 1 loss 0.3` is an evaluation's, or
        some library's: its steps begin anew again and again."""
        self._is_named |= sample.source != GENERIC and sample.loss is not None
        return self._is_named and sample.source == GENERIC

    def _is_repeated(self, sample: Sample) -> bool:
        """Whether another rank told this already. A step far below the last begins anew."""
        if sample.step is None:
            return False
        seen = self._seen.get(_kind(sample), set())
        newest = max(seen, default=sample.step)
        if sample.step < newest - _LAG:
            seen, newest = set(), sample.step
        newest = max(newest, sample.step)
        self._seen[_kind(sample)] = {s for s in (*seen, sample.step) if s >= newest - _LAG}
        return sample.step in seen


def parse(line: Line, *, at: datetime | None = None) -> Sample | None:
    """The sample that one line tells, or None. Its step is None where the trainer prints none."""
    for system in SYSTEMS:
        found = system.line.search(line.text) if system.needle in line.text else None
        if found:
            stamp = _stamp(line.text[: found.start()]) or at
            return _sample(system, found, line, stamp)
    return None


def _sample(system: System, found: re.Match[str], line: Line, at: datetime | None) -> Sample | None:
    groups = found.groupdict()
    told = {name: number(text) for name, text in groups.items() if name != "rest"}
    told |= {name: value for name, value in _pairs(system, groups) if told.get(name) is None}
    known = {name: value for name, value in told.items() if value is not None}
    if not known:
        return None
    rest = {name: value for name, value in known.items() if name not in (*_FIELDS, *_STEPS)}
    return Sample(
        source=system.name,
        step=None if system.stepless else whole(groups["step"]),
        at=at,
        offset=line.offset,
        **{name: known[name] for name in _FIELDS if name in known},
        max_steps=whole(groups.get("max_steps")),
        values=dict(list(rest.items())[:MOST_VALUES]),
    )


_STEPS = ("step", "max_steps")


def _pairs(system: System, groups: dict[str, str | None]) -> Iterator[tuple[str, float | None]]:
    rest = groups.get("rest")
    if system.pairs is None or not rest:
        return
    for name, text in system.pairs.findall(rest):
        if name in system.names or name not in _FIELDS:
            yield system.names.get(name, name), number(text)


def _kind(sample: Sample) -> str:
    """An evaluation, the end's summary and a step of training may all tell of the same step."""
    trains = sample.loss is not None or sample.grad_norm is not None
    first = "" if trains else next(iter(sample.values), "")
    return f"{sample.source} {first}"


def _stamp(text: str) -> datetime | None:
    """The last time before the metric: that of the line, glued behind a bar or not."""
    found = _STAMP.findall(text)
    if not found:
        return None
    try:
        return datetime.fromisoformat("T".join(found[-1])).replace(tzinfo=UTC)
    except ValueError:
        return None
