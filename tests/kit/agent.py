"""The agent's side of the stream protocol, small, for tests of ours: it can be told to lie."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.adapters.link import Pipes
from orchestrator.errors import Unreachable
from remote.contract import (
    CHUNK_BYTES,
    MAGIC,
    ContractError,
    Manifest,
    hash_stream,
    read_frame,
    write_frame,
)

Header = dict[str, Any]
Bend = Callable[[Header, bytes], tuple[Header, bytes] | None]


@dataclass
class Server:
    """Serves one sealed tree and takes uploads. `bend` may change a reply, or return None to cut
    the link instead; `banner` comes before the protocol, as from a login shell."""

    tree: Path
    manifest: Manifest
    inbox: Path
    bend: Bend = lambda header, payload: (header, payload)
    banner: bytes = b""
    asked: list[Header] = field(default_factory=list)
    offered: Manifest | None = None
    dest: Path | None = None

    def serve(self, reader: BinaryIO, writer: BinaryIO) -> None:
        writer.write(self.banner + MAGIC)
        writer.flush()
        while (frame := read_frame(reader)) is not None:
            header, payload = frame
            self.asked.append(header)
            reply: tuple[Header, bytes] | None = self._answer(header, payload)
            if reply and header["op"] != "hello":
                reply = self.bend(*reply)
            if reply is None:
                return
            write_frame(writer, *reply)

    def _answer(self, header: Header, payload: bytes) -> tuple[Header, bytes]:
        match header["op"]:
            case "manifest":
                return {}, self.manifest.encode()
            case "read":
                return {}, b"".join(self._range(*part) for part in header["parts"])
            case "offer":
                return self._offer(header, payload)
            case "write":
                return self._take(header, payload)
            case "commit":
                return self._commit()
        return {}, b""

    def _offer(self, header: Header, payload: bytes) -> tuple[Header, bytes]:
        self.offered, self.dest = Manifest.decode(payload), self.inbox / header["dest"]
        need = [
            [entry.path, index]
            for entry in self.offered.files
            for index, digest in enumerate(entry.chunks)
            if self._chunk(entry.path, index) != digest
        ]
        return {"upload": self.offered.digest, "need": need}, b""

    def _take(self, header: Header, payload: bytes) -> tuple[Header, bytes]:
        first = 0
        for name, offset, length in header["parts"]:
            path = self._part(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(payload[first : first + length])
            first += length
        return {}, b""

    def _range(self, path: str, offset: int, length: int) -> bytes:
        with (self.tree / path).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def _commit(self) -> tuple[Header, bytes]:
        assert self.offered
        for entry in self.offered.files:
            self._part(entry.path).parent.mkdir(parents=True, exist_ok=True)
            self._part(entry.path).touch()
        return {"digest": tree_manifest(self.dest or self.inbox).digest}, b""

    def _chunk(self, path: str, index: int) -> str:
        if not self._part(path).exists():
            return ""
        with self._part(path).open("rb") as file:
            file.seek(index * CHUNK_BYTES)
            return hashlib.sha256(file.read(CHUNK_BYTES)).hexdigest()

    def _part(self, path: str) -> Path:
        assert self.dest
        return self.dest / path

    @property
    def reads(self) -> list[tuple[str, int]]:
        """The chunks of which something was asked for."""
        return list(dict.fromkeys(chunk_of(part) for part in self.parts("read")))

    def parts(self, op: str) -> list[tuple[str, int, int]]:
        """What was asked for or sent: path, offset, length."""
        asked = [each for each in self.asked if each["op"] == op]
        return [(path, at, size) for each in asked for path, at, size in each["parts"]]


def chunk_of(part: tuple[str, int, int]) -> tuple[str, int]:
    return part[0], part[1] // CHUNK_BYTES


class SocketLink(Pipes):
    """A link to a server thread over a socket pair. The Link protocol."""

    def __init__(self, server: Server, patience_s: float) -> None:
        ours, theirs = socket.socketpair()
        threading.Thread(target=_serve, args=(server, theirs), daemon=True).start()
        self._ours = ours
        super().__init__(os.dup(ours.fileno()), os.dup(ours.fileno()), patience_s=patience_s)

    def blame(self, error: Exception) -> Exception:
        return Unreachable(f"the link broke: {error}")

    def end(self) -> None:
        try:
            self._ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        self.end()
        self._ours.close()
        super().close()


@contextmanager
def _files(end: socket.socket) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    with end, end.makefile("rb") as reader, end.makefile("wb") as writer:
        yield reader, writer


def _serve(server: Server, end: socket.socket) -> None:
    try:
        with _files(end) as (reader, writer):
            server.serve(reader, writer)
            writer.flush()
            end.shutdown(socket.SHUT_WR)
            while reader.read(CHUNK_BYTES):  # a close with unread requests would lose replies
                continue
    except (OSError, ContractError):
        return


def tree_manifest(root: Path, **meta: Any) -> Manifest:
    """The manifest of everything below `root`."""
    entries = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            entries.append(hash_stream(stream, path.relative_to(root).as_posix()))
    return Manifest(tuple(entries), meta)


def write_tree(root: Path, **files: bytes) -> Manifest:
    """Files by name ("__" is a slash), and their manifest."""
    for name, data in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tree_manifest(root, name="checkpoint-10", generation=1)
