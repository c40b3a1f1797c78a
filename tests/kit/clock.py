"""A Clock that moves only when told: tests never wait on real time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._now.timestamp()

    def wait(self, timeout_s: float) -> None:
        self.advance(timeout_s)

    def wake(self) -> None:
        pass

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
