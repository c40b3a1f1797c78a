"""A pair of pipes to the other side that cannot hang: every read and write has a deadline."""

from __future__ import annotations

import fcntl
import io
import os
import select
import termios
import time
from array import array
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

STALL_S = 30.0
_BUFFER_BYTES = 1024 * 1024
_AHEAD_BYTES = 64 * 1024  # what a header may bring along: the rest of a payload is not copied twice
# A payload trickles in by packets of 32 KiB. To sleep until the pipe has gathered some of them, and
# is far from full, costs a fraction of the CPU of reading each of them as it comes.
_GATHER_BYTES = 256 * 1024
_LEAST_GATHER_S, _MOST_GATHER_S = 0.0005, 0.016


class Stalled(OSError):
    """Not a byte moved for as long as the link's patience lasts."""


class Link(Protocol):
    """What a stream speaks over. `patience_s` may be raised for a slow request."""

    reader: BinaryIO
    writer: BinaryIO
    patience_s: float

    def blame(self, error: Exception) -> Exception:
        """Why the link ended, as the error to raise; `error` is how it showed."""
        ...

    def end(self) -> None:
        """Make the other side go away, so that a thread that reads or writes wakes up."""
        ...

    def close(self) -> None:
        """`end`, and give back the descriptors: not while another thread uses them."""
        ...


class Pipes:
    """`reader` and `writer` over two descriptors, which it owns. A connection that is half
    open sends nothing and closes nothing: only a deadline tells it from a slow one."""

    def __init__(self, read_fd: int, write_fd: int, *, patience_s: float = STALL_S) -> None:
        self.patience_s = patience_s
        self._input = _Input(read_fd, self._patience)
        self._output = _Output(write_fd, self._patience)
        self.reader = cast(BinaryIO, io.BufferedReader(self._input, _AHEAD_BYTES))
        self.writer = cast(BinaryIO, self._output)

    def close(self) -> None:
        self._input.close()
        self._output.close()

    def _patience(self) -> float:
        return self.patience_s


class _Input(io.RawIOBase):
    def __init__(self, fd: int, patience_s: Callable[[], float]) -> None:
        super().__init__()
        os.set_blocking(fd, False)
        self._fd = fd
        self._patience_s = patience_s
        self._gather_s = _LEAST_GATHER_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            try:
                return os.readv(self._fd, [buffer])
            except BlockingIOError:
                _await(self._fd, select.POLLIN, self._patience_s())
                if len(buffer) > _AHEAD_BYTES:
                    self._gather(min(len(buffer), _GATHER_BYTES))

    def _gather(self, wanted: int) -> None:
        """Sleep once, for about as long as `wanted` bytes took to come the last times."""
        if _waiting_bytes(self._fd) >= wanted:
            return
        time.sleep(self._gather_s)
        share = wanted / max(_waiting_bytes(self._fd), 1)
        self._gather_s *= min(max(share, 0.5), 2.0)
        self._gather_s = min(max(self._gather_s, _LEAST_GATHER_S), _MOST_GATHER_S)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class _Output(io.RawIOBase):
    def __init__(self, fd: int, patience_s: Callable[[], float]) -> None:
        super().__init__()
        os.set_blocking(fd, False)
        self._fd = fd
        self._patience_s = patience_s

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        left = memoryview(data)
        while left:
            _await(self._fd, select.POLLOUT, self._patience_s())
            try:
                left = left[os.write(self._fd, left[:_BUFFER_BYTES]) :]
            except BlockingIOError:
                continue
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def _waiting_bytes(fd: int) -> int:
    """How much could be read now."""
    count = array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def _await(fd: int, event: int, patience_s: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(patience_s * 1000):
        raise Stalled(f"not a byte moved for {patience_s:.0f} s")
