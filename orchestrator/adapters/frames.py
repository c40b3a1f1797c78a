"""Requests and replies over one link to the agent's `serve`, and every failure by its name."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.adapters.link import Link
from orchestrator.core.printable import printable
from orchestrator.errors import GpujobError, IntegrityError, NotFound, Refused, Unreachable
from remote.contract import (
    ContractError,
    read_frame,
    read_header,
    skip_to_magic,
    write_frame,
)

Frame = tuple[dict[str, Any], bytes]
REPLY_BYTES = 1024 * 1024  # more than any reply says that is not asked for as a whole


class Frames:
    """Connects at first use, and again after a failure. One thread works, any may close. `rtt_s`
    is how long the first small question took: infinite before it was answered."""

    def __init__(self, connect: Callable[[], Link]) -> None:
        self.rtt_s = math.inf
        self._greeted_at: float | None = None
        self._connect = connect
        self._link: Link | None = None
        self._closed = False
        self._state = threading.Lock()
        self._busy = threading.Lock()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around whatever sends or receives; a link that was closed meanwhile is given back."""
        try:
            with self._busy:
                yield
        finally:
            if self._closed:
                self.drop()

    def ask(
        self, header: dict[str, Any], payload: bytes = b"", *, patience_s: float = 0.0
    ) -> Frame:
        """One request and its reply, for which to wait `patience_s` longer than usual."""
        reply, data = self.hear(header, payload, patience_s=patience_s)
        if "error" in reply:
            raise refusal(reply)
        return reply, data

    def hear(
        self, header: dict[str, Any], payload: bytes = b"", *, patience_s: float = 0.0
    ) -> Frame:
        """As `ask`; an error reply is returned as any other."""
        with self.mapped():
            link = self._open()
        usual = link.patience_s
        link.patience_s = usual + patience_s
        try:
            self.greet()
            if payload:
                self._hear_greeting()  # what takes long to send would count as well
            self.send(header, payload)
            return self.receive()
        finally:
            link.patience_s = usual

    def send(self, header: dict[str, Any], payload: bytes) -> None:
        with self.mapped():
            write_frame(self._open().writer, header, payload)

    def greet(self) -> None:
        """Ask, once, what is quick to answer; what is sent next need not wait for that."""
        if math.isinf(self.rtt_s) and self._greeted_at is None:
            self.send({"op": "hello"}, b"")
            self._greeted_at = time.monotonic()

    def receive(self) -> Frame:
        """The next reply, whatever it says."""
        self._hear_greeting()
        return self._receive()

    def head(self) -> dict[str, Any]:
        """The next reply without its payload, which is to be had by `fill`. An error reply is
        returned as any other, once its payload was passed over."""
        self._hear_greeting()
        with self.mapped():
            header = read_header(self._open().reader, REPLY_BYTES)
            if header is None:
                raise ContractError("the box ended the stream")
            if "error" in header and header["bytes"]:
                raise ContractError("an error reply with a payload")
            return header

    def fill(self, view: memoryview) -> int:
        """Read the next bytes of a payload until `view` is full; fewer only when the link ends,
        of which the next call tells."""
        have = 0
        with self.mapped():
            reader = self._open().reader
            while have < len(view):
                try:
                    count = reader.readinto1(view[have:])  # type: ignore[attr-defined]
                except OSError:
                    if have:
                        return have
                    raise
                if not count:
                    if have:
                        return have
                    raise ContractError("the stream was cut short")
                have += count
        return have

    def interrupt(self) -> None:
        """From another thread: whoever works here gets Unreachable, now."""
        with self._state:
            if self._link is not None:
                self._link.end()

    def connect(self) -> None:
        """Make the link now. Raises as every other method does."""
        with self.mapped():
            self._open()

    @property
    def is_closed(self) -> bool:
        return self._closed

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """What breaks the link, or is no protocol, ends it; the next call makes a new one."""
        try:
            yield
        except (OSError, ContractError) as error:
            blamed = self._link.blame(error) if self._link else Unreachable(f"{error}.")
            self.drop()
            raise blamed from error

    def drop(self) -> None:
        """Give the link back: replies may be under way that nobody will read."""
        with self._state:
            link, self._link = self._link, None
        self._greeted_at = None
        if link is not None:
            link.close()

    def close(self) -> None:
        """End for good, without waiting: a thread that works here gets Unreachable."""
        with self._state:
            self._closed = True
            if self._link is not None:
                self._link.end()
        if self._busy.acquire(blocking=False):
            self._busy.release()
            self.drop()

    def _hear_greeting(self) -> None:
        if self._greeted_at is not None:
            self._receive()
            self.rtt_s = time.monotonic() - self._greeted_at
            self._greeted_at = None

    def _receive(self) -> Frame:
        with self.mapped():
            frame = read_frame(self._open().reader)
            if frame is None:
                raise ContractError("the box ended the stream")
        return frame

    def _open(self) -> Link:
        with self._state:
            if self._closed:
                raise ConnectionAbortedError("The stream was closed here")
            if self._link is not None:
                return self._link
            self._link = self._connect()
        skip_to_magic(self._link.reader)
        return self._link


def refusal(header: dict[str, Any]) -> GpujobError:
    """What an error reply stands for."""
    kind, message = str(header["error"]), printable(str(header.get("message", ""))[:1000])
    match kind:
        case "not_found":
            return NotFound(f"The box does not hold it: {message}")
        case "changed":
            return IntegrityError(f"Changed on the box since it was sealed: {message}")
        case "no_space":
            return GpujobError(
                f"The box's disk is full: {message}", hint="launch with a larger disk_gb"
            )
        case "io":
            return Unreachable(f"The box failed to read or write: {message}")
        case _:
            return Refused(f"The box refused: {message}")
