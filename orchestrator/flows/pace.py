"""How fast this run's checkpoints come here, measured."""

from __future__ import annotations

from collections import deque
from datetime import datetime

WINDOW_S = 60.0
LEAST_S = 2.0


class Pace:
    """Bytes a second over the newest minute of the newest transfer, or for as long as its bytes
    took; what an earlier try had verified is not counted."""

    def __init__(self) -> None:
        self._what = ""
        self._told: deque[tuple[datetime, int]] = deque()
        self.bytes_per_s: float | None = None

    def told(self, what: str, size_bytes: int, now: datetime) -> None:
        if what != self._what or (self._told and size_bytes < self._told[-1][1]):
            self._what = what
            self._told.clear()
        self._told.append((now, size_bytes))
        while len(self._told) > 2 and (now - self._told[1][0]).total_seconds() > WINDOW_S:
            self._told.popleft()
        began, first = self._told[0]
        past_s, gained = (now - began).total_seconds(), size_bytes - first
        if past_s >= LEAST_S and gained > 0:
            self.bytes_per_s = gained / past_s
