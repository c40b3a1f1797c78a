"""What a trainer told of its steps, kept within bounds: a run may be longer than any memory."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.run import Attempt
from orchestrator.core.signatures.samples import Sample
from orchestrator.core.signatures.structured import metrics_lines

READ_BYTES = 4 * 1024**2
MOST_LINE = 64 * 1024
KEPT = 2000
MOST_ODD = 20


@dataclass(frozen=True)
class Read:
    is_new: bool
    is_behind: bool


@dataclass
class Kept:
    """The samples of one source: its beginning and its end whole, and of those between whatever
    was no number, each with the next one that was: hours apart they are no row."""

    last_step: int | None = None
    _head: list[Sample] = field(default_factory=list)
    _tail: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))
    _odd: list[Sample] = field(default_factory=list)
    _was_odd: bool = True  # the first one ends what the beginning may have ended with

    def __iter__(self) -> Iterator[Sample]:
        yield from self._head
        yield from self._odd
        yield from self._tail

    def extend(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            self._keep(sample)

    def _keep(self, sample: Sample) -> None:
        if sample.step is not None:
            self.last_step = sample.step
        if len(self._head) < KEPT:
            self._head.append(sample)
            return
        if len(self._tail) == KEPT:
            self._pass_over(self._tail[0])
        self._tail.append(sample)

    def _pass_over(self, sample: Sample) -> None:
        told = [each for each in (sample.loss, sample.grad_norm) if each is not None]
        is_odd = not all(math.isfinite(each) for each in told)
        if told and (is_odd or self._was_odd) and len(self._odd) < MOST_ODD:
            self._odd.append(sample)
        self._was_odd = is_odd if told else self._was_odd


@dataclass
class Curve:
    """What one attempt wrote into its box's `metrics.jsonl`."""

    path: Path
    attempt: Attempt
    ends_at: int | None = None
    samples: Kept = field(default_factory=Kept)
    _at: int = -1

    @property
    def last_step(self) -> int | None:
        return self.samples.last_step

    def read(self) -> Read:
        """Take in the whole lines that have come since, at most READ_BYTES of them."""
        if self._at < 0:
            self._at = self.attempt.metrics_from
        wanted = READ_BYTES if self.ends_at is None else min(READ_BYTES, self.ends_at - self._at)
        data = read_at(self.path, self._at, wanted)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) > MOST_LINE:
            whole = data  # a line that no trainer writes: passed over
        self._at += len(whole)
        lines = (line for line in whole.split(b"\n") if self._is_mine(line))
        self.samples.extend(metrics_lines(lines))
        return Read(bool(whole), len(data) == READ_BYTES)

    def _is_mine(self, line: bytes) -> bool:
        """A line that names its attempt is believed: what is late of the one before says so."""
        if b'"attempt"' not in line:
            return bool(line)
        try:
            named = json.loads(line).get("attempt", self.attempt.number)
        except (ValueError, RecursionError, AttributeError):
            return False
        return bool(named == self.attempt.number)


def read_at(path: Path, offset: int, most: int) -> bytes:
    """Empty for what cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(max(0, most))
    except OSError:
        return b""


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
