"""Whether a controller is there: only what comes from it proves that.

What we write to it proves nothing: in a link that is half open it waits for ever, and no error
ever comes.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Callable, Optional

from remote.agent.paths import Root

NOTE_S = 2.0
BLOCK_BYTES = 4096


class Heard:
    """Takes down, in the time of the file `heard`, that a controller said something just now.
    Every connection has one of its own; the supervisor looks at the file."""

    def __init__(self, root: Root, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = root.heard
        self._clock = clock
        self._noted_at = float("-inf")

    def note(self) -> None:
        """At most once in NOTE_S; a disk that fails keeps nobody from working."""
        now = self._clock()
        if now - self._noted_at < NOTE_S:
            return
        self._noted_at = now
        with contextlib.suppress(OSError):
            self._path.touch()


class Ear:
    """Listens to a descriptor that a controller writes to now and then. Its end is no sign of
    life; what is heard there afterwards is nothing."""

    def __init__(self, root: Root, descriptor: int) -> None:
        self._heard = Heard(root)
        self._descriptor: Optional[int] = descriptor

    def listen(self) -> None:
        """Take in what was sent, without waiting for more."""
        if self._descriptor is None or not _is_readable(self._descriptor):
            return
        if self._read(self._descriptor):
            self._heard.note()
        else:
            self._descriptor = None

    def _read(self, descriptor: int) -> bytes:
        try:
            return os.read(descriptor, BLOCK_BYTES)
        except OSError:
            return b""


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
