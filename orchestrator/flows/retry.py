"""When a task that failed may be tried again: doubling waits, and an end to trying."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

FIRST_S = 0.5
CAP_S = 30.0
# Something may fail for days: 2.0 ** 1024 is no float any more.
MOST_DOUBLINGS = 16


@dataclass(frozen=True)
class _Entry:
    failures: int
    not_before: datetime


class Backoff:
    """Failures of each key in a row, and the wait that follows them."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def failed(self, key: str, now: datetime) -> int:
        """Record a failure and return how many there were in a row."""
        failures = self.failures(key) + 1
        wait = min(CAP_S, FIRST_S * 2 ** min(failures - 1, MOST_DOUBLINGS))
        self._entries[key] = _Entry(failures, now + timedelta(seconds=wait))
        return failures

    def hold(self, key: str, until: datetime) -> None:
        """Not again before `until`, although nothing failed."""
        self._entries[key] = _Entry(0, until)

    def cleared(self, key: str) -> None:
        self._entries.pop(key, None)

    def failures(self, key: str) -> int:
        entry = self._entries.get(key)
        return entry.failures if entry else 0

    def waiting(self, now: datetime) -> frozenset[str]:
        return frozenset(key for key, each in self._entries.items() if each.not_before > now)

    def forget(self) -> None:
        """Nothing has failed, nothing waits."""
        self._entries.clear()
