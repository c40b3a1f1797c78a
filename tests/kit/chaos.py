"""A proxy between a client and what serves it: it cuts, stalls, flips and kills at given bytes."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

BLOCK_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)
GENTLE_BYTES = 128 * 1024  # of a connection's requests: none of these is flipped, ssh would see it


@dataclass(frozen=True)
class Fault:
    """`kind` happens when `at` bytes have come from the serving side, over all connections."""

    at: int
    kind: str


@dataclass(frozen=True)
class Back:
    """The serving side of one connection, and how to kill it."""

    end: socket.socket
    kill: Callable[[], None]
    close: Callable[[], None] = lambda: None


def plan(rng: random.Random, kinds: list[str], count: int, size: int) -> list[Fault]:
    """`count` faults at random places within the first `size` bytes."""
    return sorted(
        (Fault(rng.randrange(1, size), rng.choice(kinds)) for _ in range(count)),
        key=lambda fault: fault.at,
    )


@dataclass
class Proxy:
    """Accepts on `listener`; `kill_client` is what the fault `client` does. `down` and `up` count
    the bytes that came from the serving side and from the client."""

    listener: socket.socket
    open_back: Callable[[], Back]
    faults: list[Fault]
    seed: int
    kill_client: Callable[[], None] = lambda: None
    down: int = 0
    up: int = 0
    happened: list[str] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._lock = threading.Lock()
        self._left = list(self.faults)
        self._live: list[_Connection] = []
        self._is_closed = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Nothing of it is left."""
        with self._lock:
            self._is_closed = True
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for each in self._connections():
            each.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                front, _ = self.listener.accept()
            except OSError:
                return
            try:
                back = self.open_back()
            except OSError:
                front.close()
                continue
            with self._lock:
                is_late = self._is_closed
                connection = _Connection(self, front, back)
                self._live.append(connection)
                self.connections += 1
                thread = threading.Thread(target=connection.run, daemon=True)
                self._threads.append(thread)
            thread.start()
            if is_late:
                connection.cut()

    def count(self, connection: _Connection, size: int, *, is_down: bool) -> None:
        """Take in that bytes passed, and let happen what is due."""
        with self._lock:
            if not is_down:
                self.up += size
                total = self.down + self.up
            else:
                self.down += size
                total = self.down + self.up
            due = [fault for fault in self._left if fault.at <= total]
            self._left = [fault for fault in self._left if fault.at > total]
            self.happened += [fault.kind for fault in due]
        for fault in due:
            self._happen(fault.kind, connection)

    def _happen(self, kind: str, connection: _Connection) -> None:
        match kind:
            case "cut":
                connection.cut()
            case "cut all":
                for each in self._connections():
                    each.cut()
            case "stall":
                connection.is_stalled = True
            case "flip":
                connection.flips += 1
            case "server":
                connection.back.kill()
            case "client":
                self.kill_client()
            case _:
                raise ValueError(kind)

    def forget(self, connection: _Connection) -> None:
        with self._lock:
            self._live.remove(connection)

    def place(self, size: int) -> int:
        with self._lock:
            return self._rng.randrange(8 * size)

    def _connections(self) -> list[_Connection]:
        with self._lock:
            return list(self._live)


class _Connection:
    def __init__(self, proxy: Proxy, front: socket.socket, back: Back) -> None:
        self.back = back
        self.flips = 0
        self.is_stalled = False
        self._proxy = proxy
        self._front = front

    def run(self) -> None:
        up = threading.Thread(target=self._pump, args=(self._front, self.back.end, False))
        up.start()
        self._pump(self.back.end, self._front, True)
        up.join()
        self._proxy.forget(self)
        self._front.close()
        self.back.end.close()
        self.back.close()

    def cut(self) -> None:
        """As when a router forgets the connection: no goodbye."""
        for end in (self._front, self.back.end):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, sink: socket.socket, is_down: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(BLOCK_BYTES):
                self._proxy.count(self, len(data), is_down=is_down)
                passed += len(data)
                if self.is_stalled:
                    continue
                if self.flips and (is_down or passed > GENTLE_BYTES):
                    data = self._flipped(data)
                sink.sendall(data)
        for end, how in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
            with suppress(OSError):
                end.shutdown(how)

    def _flipped(self, data: bytes) -> bytes:
        self.flips -= 1
        bit = self._proxy.place(len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)
