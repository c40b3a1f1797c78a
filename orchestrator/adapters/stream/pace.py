"""How many bytes may move now: a token bucket that all connections of a run draw from."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

# What one connection carries over a slow link; a cap below it needs no second one.
STREAM_BYTES_S = 5e6
BURST_S = 0.25
LOOK_S = 1.0
RateAt = Callable[[], float | None]


class Pace:
    """`rate_at` tells the cap of this moment in bytes a second: None for none, 0 for a pause. What
    is spent may exceed what is there; the next has to wait until that is made good. `time_s` is a
    monotonic clock."""

    def __init__(
        self, rate_at: RateAt = lambda: None, time_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate_at = rate_at
        self._time_s = time_s
        self._lock = threading.Lock()
        self._rate: float | None = None
        self._looked_at = -math.inf
        self._filled_at = time_s()
        self._there = 0.0

    @property
    def is_paused(self) -> bool:
        with self._lock:
            return self._look(self._time_s()) == 0

    def streams(self) -> int:
        """How many connections the cap is worth."""
        with self._lock:
            rate = self._look(self._time_s())
        return 1024 if rate is None else max(1, math.ceil(rate / STREAM_BYTES_S))

    def wait_s(self) -> float:
        """How long until more may be asked for; 0 is now."""
        now = self._time_s()
        with self._lock:
            rate = self._look(now)
            if rate is None:
                return 0.0
            if rate == 0:
                return LOOK_S
            self._there = min(rate * BURST_S, self._there + rate * (now - self._filled_at))
            self._filled_at = now
            return 0.0 if self._there > 0 else -self._there / rate + 0.001

    def spend(self, size: int) -> None:
        with self._lock:
            if self._rate:
                self._there -= size

    def _look(self, now: float) -> float | None:
        if now - self._looked_at >= LOOK_S:
            rate = self._rate_at()
            if rate != self._rate:
                self._there, self._filled_at = 0.0, now
            self._rate, self._looked_at = rate, now
        return self._rate
