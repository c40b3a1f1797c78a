"""An account's rate, kept: how many requests may still be sent, by what we count and by what the
vendor says."""

from __future__ import annotations

import math
import re
import threading
from collections import deque
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

from orchestrator.errors import Transient
from orchestrator.ports import Clock

# RunPod's specification shows 60 a minute for an account; other programs ask too.
PER_MINUTE = 54
WINDOW_S = 60.0
# Whatever a vendor says, what is about money is tried again this often.
LONGEST_S = 300.0
# A poll can wait for its next turn; a create or a terminate is about money now.
Kind = Literal["poll", "act", "create"]
_WINDOW = re.compile(r"r=(\d{1,9})\s*;\s*t=(\d{1,9})")


class Rate:
    """Requests of the account in the running minute, by all that use it. It never sleeps: who
    comes too early is told when to come again. Polls leave a reserve for what is about money, and
    creates leave room for polls: fifty runs that start at once must still be seen to boot."""

    def __init__(self, clock: Clock, *, per_minute: int = PER_MINUTE, reserve: int = 10) -> None:
        self.clock = clock
        self._per_minute = per_minute
        # A small allowance is not all reserve.
        self._reserve = min(reserve, per_minute // 2)
        self._creates = max(1, per_minute * 2 // 5)
        self._sent: deque[float] = deque()
        self._created: deque[float] = deque()
        # What is left of each of the vendor's windows, and when it begins anew.
        self._windows: list[tuple[int, float]] = []
        self._blocked_until = 0.0
        self._lock = threading.Lock()

    def take(self, kind: Kind) -> None:
        """Count one request. Raises Transient, and nothing was sent, when it has to wait."""
        with self._lock:
            now = self.clock.monotonic()
            wait_s = self._wait_s(self._reserve if kind == "poll" else 0, now)
            if kind == "create":
                wait_s = max(wait_s, self._creates_wait_s(now))
            if wait_s > 0:
                raise Transient(
                    f"the account's rate limit is near; again in {math.ceil(wait_s)} s",
                    retry_s=wait_s,
                )
            self._sent.append(now)
            if kind == "create":
                self._created.append(now)
            self._windows = [(left - 1, until) for left, until in self._windows]

    def learn(self, headers: Mapping[str, str]) -> float | None:
        """Take in what the vendor says of its windows. For how long it wants to hear nothing, in
        seconds: the longest that is used up, when it says Retry-After; else None."""
        with self._lock:
            now = self.clock.monotonic()
            told = [
                (int(left), int(s)) for left, s in _WINDOW.findall(headers.get("ratelimit", ""))
            ]
            if told:
                self._windows = [(left, now + min(s, LONGEST_S)) for left, s in told]
            asked_s = self._retry_after_s(headers)
            if asked_s is None:
                return None
            # Retry-After is about the window that refused, and a longer one may be used up too.
            longest_s = max([asked_s, *(float(s) for left, s in told if left == 0)])
            self._blocked_until = now + min(longest_s, LONGEST_S)
            return min(longest_s, LONGEST_S)

    def _retry_after_s(self, headers: Mapping[str, str]) -> float | None:
        said = headers.get("retry-after", "").strip()
        if re.fullmatch(r"\d{1,9}", said):
            return float(said)
        try:
            return max(0.0, (parsedate_to_datetime(said) - self.clock.now()).total_seconds())
        except (TypeError, ValueError):
            return None

    def _creates_wait_s(self, now: float) -> float:
        while self._created and now - self._created[0] >= WINDOW_S:
            self._created.popleft()
        over = len(self._created) - self._creates
        return self._created[over] + WINDOW_S - now if over >= 0 else 0.0

    def _wait_s(self, keep: int, now: float) -> float:
        while self._sent and now - self._sent[0] >= WINDOW_S:
            self._sent.popleft()
        waits = [until - now for left, until in self._windows if left <= keep]
        over = len(self._sent) - (self._per_minute - keep)
        if over >= 0:
            waits.append(self._sent[over] + WINDOW_S - now)
        return max([self._blocked_until - now, *waits, 0.0])


__all__ = ["LONGEST_S", "PER_MINUTE", "Kind", "Rate"]
