"""Real time: the one place that reads it and the one place that waits."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class SystemClock:
    """The port Clock."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, timeout_s: float) -> None:
        self._woken.wait(timeout_s)
        self._woken.clear()

    def wake(self) -> None:
        self._woken.set()
