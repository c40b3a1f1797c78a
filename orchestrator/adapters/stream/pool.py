"""The connections of one stream: the one for questions, those that transfers use besides, and some
that are made ahead of need.

Over a long link a connection takes most of a second until it carries anything. Those of a large
transfer are made while the first one still comes up, and not after it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.adapters.frames import Frames
from orchestrator.adapters.link import Link
from orchestrator.errors import GpujobError


@dataclass
class Way:
    """What is known of the way to a box, from the newest transfer: seconds of a round trip."""

    rtt_s: float | None = None


class Pool:
    """Safe to use from several threads. After `close` every connection ends with Unreachable."""

    def __init__(self, connect: Callable[[], Link]) -> None:
        self.control = Frames(connect)
        self._connect = connect
        self._lock = threading.Lock()
        self._all = {self.control}
        self._ahead: deque[Frames] = deque()
        self._closed = threading.Event()

    @property
    def has_ahead(self) -> bool:
        return bool(self._ahead)

    def make_control(self) -> None:
        """Begin to make the one for questions."""
        self._begin(self.control, 0.0)

    def make_ahead(self, count: int, *, spacing_s: float) -> None:
        """Begin to make what is missing to `count` connections ahead, one each `spacing_s`; what
        fails is made by who takes it."""
        for place in range(len(self._ahead) + 1, count + 1):
            frames = self._new()
            self._ahead.append(frames)
            self._begin(frames, place * spacing_s)

    def take(self) -> Frames:
        """One that is there or on its way, else a new one."""
        with suppress(IndexError):
            return self._ahead.popleft()
        return self._new()

    def give_back(self, frames: Frames) -> None:
        """Only the connection for questions stays open when a transfer ends."""
        if frames is not self.control:
            frames.close()
            with self._lock:
                self._all.discard(frames)

    def forget_ahead(self) -> None:
        """What was made and not used."""
        while self.has_ahead:
            self.give_back(self.take())

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            frames = list(self._all)
        for each in frames:
            each.close()

    def _new(self) -> Frames:
        frames = Frames(self._connect)
        with self._lock:
            self._all.add(frames)
            is_closed = self._closed.is_set()
        if is_closed:
            frames.close()
        return frames

    def _begin(self, frames: Frames, after_s: float) -> None:
        threading.Thread(target=self._make, args=(frames, after_s), daemon=True).start()

    def _make(self, frames: Frames, after_s: float) -> None:
        if not self._closed.wait(after_s):
            with suppress(GpujobError), frames.working():
                frames.connect()
