"""A box's public port: in front of its sshd, and able to fail in every way that a network can."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

CHUNK = 64 * 1024


class Door:
    """Closed at first: the port is ours, and a connect is refused."""

    def __init__(self, port: int = 0) -> None:
        self._socket = _reserve(port)
        self._server: asyncio.Server | None = None
        self._talks = asyncio.Event()
        self._visits: set[asyncio.Task[None]] = set()
        self.target: int | None = None
        self.port = int(self._socket.getsockname()[1])

    async def open(self, target: int) -> None:
        """Lead every new connection to `target`, and let stalled ones go on."""
        self.target = target
        self._talks.set()
        if self._server is None:
            self._socket.setblocking(False)
            self._server = await asyncio.start_server(self._visit, sock=self._socket)

    async def refuse(self) -> None:
        """Refuse new connections; open ones go on."""
        if self._server is not None:
            self._server.close()  # and with it the socket: the port is taken again at once
            self._server = None
            self._socket = _reserve(self.port)

    def silence(self) -> None:
        """Let connections be made and say nothing, as a host does that lost its network."""
        self._talks.clear()

    async def cut(self) -> None:
        """End every open connection; new ones are welcome."""
        for visit in list(self._visits):
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    async def close(self) -> None:
        """Cut everything and give the port back."""
        await self.refuse()
        await self.cut()
        self._socket.close()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._visits.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # the door was closed: a visit has nobody to tell
        finally:
            self._visits.discard(task)
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._talks.wait()
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        pumps = [
            asyncio.create_task(self._pump(reader, outer)),
            asyncio.create_task(self._pump(inner, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.ALL_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            outer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way; while the door is silent nothing passes, not even the end."""
        with suppress(OSError):
            while True:
                data = await reader.read(CHUNK)
                await self._talks.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()


def _reserve(port: int) -> socket.socket:
    """A port that is bound and does not listen."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made
