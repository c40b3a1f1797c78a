"""How fast bytes come, over the newest moments."""

from __future__ import annotations

import threading
import time
from collections import deque

WINDOW_S = 2.0
STEP_S = 0.1


class Meter:
    """Counts bytes from any thread. `total` is all of them."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._steps: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        now = time.monotonic()
        with self._lock:
            self.total += count
            if self._steps and now - self._steps[-1][0] < STEP_S:
                at, had = self._steps.pop()
                self._steps.append((at, had + count))
            else:
                self._steps.append((now, count))
            self._forget(now)

    def rate(self) -> float:
        """Bytes a second."""
        now = time.monotonic()
        with self._lock:
            self._forget(now)
            past_s = min(WINDOW_S, now - self._began)
            return sum(count for _, count in self._steps) / max(past_s, STEP_S)

    def _forget(self, now: float) -> None:
        while self._steps and now - self._steps[0][0] > WINDOW_S:
            self._steps.popleft()
