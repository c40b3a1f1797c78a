"""A trainer's log, read as it grows: its steps, what it is doing, the errors that it names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from orchestrator.core.health.watch import Fault
from orchestrator.core.signatures.console import Console
from orchestrator.core.signatures.errors import seen_in
from orchestrator.core.signatures.lifecycle import Life, follow
from orchestrator.core.signatures.reader import Line, Reader
from orchestrator.flows.curves import Kept, read_at, size_of

READ_BYTES = 256 * 1024  # a step of the daemon stays short: some 0.1 ms a line
FAR_BEHIND = 16 * 1024**2
MOST_FAULTS = 20


@dataclass(frozen=True)
class Named:
    """An error that a line names, and when we read it, on the box's clock."""

    fault: Fault
    at: datetime | None


@dataclass
class Logbook:
    """The part of a box's log that one attempt wrote: from `begins` until `ends` (None: it goes
    on). Of a log that runs away from us the middle is passed over."""

    path: Path
    begins: int
    ends: int | None = None
    life: Life = field(default_factory=Life)
    samples: Kept = field(default_factory=Kept)
    faults: list[Named] = field(default_factory=list)
    _console: Console = field(default_factory=Console)
    _reader: Reader | None = None
    _is_over: bool = False

    @property
    def offset(self) -> int:
        return self._reader.offset if self._reader else self.begins

    def read(self, until: int | None, at: datetime | None) -> bool:
        """Take in what has come before `until`, at most READ_BYTES; `at` is about when it was
        printed. Whether that was anything."""
        reader = self._reader = self._reader or Reader(offset=self.begins)
        self._catch_up(reader)
        ends = [end for end in (until, self.ends) if end is not None]
        most = min([READ_BYTES, *(end - reader.offset for end in ends)])
        data = read_at(self.path, reader.offset, most)
        self._take(reader.feed(data), at)
        return bool(data)

    @property
    def is_behind(self) -> bool:
        end = size_of(self.path) if self.ends is None else self.ends
        return self.offset < min(end, size_of(self.path))

    def end(self) -> None:
        """Nothing more comes: what waited for its end has had it."""
        if self._reader and not self._is_over:
            self._is_over = True
            self._take(self._reader.end(), None)
            self.samples.extend(self._console.end())

    def _catch_up(self, reader: Reader) -> None:
        end = size_of(self.path) if self.ends is None else self.ends
        if end - reader.offset > FAR_BEHIND:
            self._take(reader.feed(b"", offset=end - FAR_BEHIND // 2), None)

    def _take(self, lines: Iterable[Line], at: datetime | None) -> None:
        lines = list(lines)
        self.life = follow(self.life, lines)
        self.samples.extend(self._console.feed(lines, at=at))
        for line in lines:
            if len(self.faults) >= MOST_FAULTS:
                return
            kind = seen_in(line.text)
            if kind:
                self.faults.append(Named(Fault(kind, line.offset, line.text[:300]), at))
