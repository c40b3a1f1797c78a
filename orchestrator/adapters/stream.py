"""The port Stream: trees of files by manifest, over frames to the agent's `serve`.

Requests are kept in flight, so that a long link is not idle; what was verified is never sent
again, whatever ends the transfer.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.frames import Frames
from orchestrator.adapters.link import Link
from orchestrator.adapters.partial import Chunk, Partial
from orchestrator.errors import IntegrityError
from orchestrator.ports import Progress
from remote.contract import (
    CHUNK_BYTES,
    ContractError,
    FileEntry,
    Manifest,
)

IN_FLIGHT_BYTES = 3 * CHUNK_BYTES
IN_FLIGHT_REQUESTS = 32
TRIES = 3
RESTORE_PATIENCE_S = 600.0  # a box without hard links copies
SLOW_DISK_BYTES_S = 20e6  # how fast a box is trusted to hash what it holds, at the least
SAFE = "Nothing is lost: the box keeps the checkpoint until it is held here."


@dataclass(frozen=True)
class _Wanted:
    """A chunk to move; `tries` how often it came wrong."""

    entry: FileEntry
    index: int
    tries: int = 0

    @property
    def size(self) -> int:
        return min(CHUNK_BYTES, self.entry.size - self.index * CHUNK_BYTES)

    @property
    def key(self) -> Chunk:
        return self.entry.path, self.index


class FrameStream:
    """Connects at first use, and again after a failure. One thread works, any may close."""

    def __init__(self, connect: Callable[[], Link]) -> None:
        self._frames = Frames(connect)

    def manifest(self, name: str, generation: int) -> Manifest:
        request = {"op": "manifest", "name": name, "generation": generation}
        with self._frames.working(), self._frames.mapped():
            return Manifest.decode(self._frames.ask(request)[1])

    def pull(
        self, name: str, generation: int, into: Path, manifest: Manifest, progress: Progress
    ) -> None:
        """`progress` is told the bytes of the tree that are verified here so far.

        What is in `into` and its journal from an earlier try is used again once it was hashed.
        A chunk that comes wrong is fetched again, three times in all."""
        _check_tree(manifest)
        partial = Partial(into, manifest)
        with self._frames.working(), disk_room(into, safe=SAFE):
            held = partial.resume()
            wanted = [each for each in _chunks(manifest.files) if each.key not in held]
            done = manifest.size_bytes - sum(each.size for each in wanted)
            progress(done)
            for got in self._fetch(name, generation, wanted, partial):
                done += got
                progress(done)
            _finish(partial)

    def ack(self, name: str, generation: int) -> None:
        with self._frames.working():
            self._frames.ask({"op": "ack", "name": name, "generation": generation})

    def push(
        self,
        source: Path,
        manifest: Manifest,
        dest: str,
        mode: Literal["merge", "folder"],
        progress: Progress,
    ) -> None:
        """`progress` is told the bytes of the tree that the box holds so far."""
        patience_s = manifest.size_bytes / SLOW_DISK_BYTES_S
        offer = {"op": "offer", "dest": dest, "mode": mode}
        with self._frames.working():
            reply, _ = self._frames.ask(offer, manifest.encode(), patience_s=patience_s)
            needed, upload = self._needed(reply, manifest), reply.get("upload")
            done = manifest.size_bytes - sum(each.size for each in needed)
            progress(done)
            for sent in self._send(upload, needed, source):
                done += sent
                progress(done)
            commit = {"op": "commit", "upload": upload}
            reply, _ = self._frames.ask(commit, patience_s=patience_s)
        if reply.get("digest") != manifest.digest:
            raise IntegrityError(
                f"The box put another tree into {dest} than the one sent.",
                hint="gpujob teardown, then launch again",
            )

    def restore(self, name: str, digest: str, dest: str) -> None:
        request = {"op": "restore", "name": name, "digest": digest, "dest": dest}
        with self._frames.working():
            self._frames.ask(request, patience_s=RESTORE_PATIENCE_S)

    def close(self) -> None:
        self._frames.close()

    def _fetch(
        self, name: str, generation: int, wanted: list[_Wanted], partial: Partial
    ) -> Iterator[int]:
        queue = deque(wanted)

        def request(each: _Wanted) -> tuple[dict[str, Any], bytes]:
            header = {"op": "read", "name": name, "generation": generation}
            offset = each.index * CHUNK_BYTES
            return {**header, "path": each.entry.path, "offset": offset, "length": each.size}, b""

        for each, payload in self._pipeline(queue, request):
            if hashlib.sha256(payload).hexdigest() == each.entry.chunks[each.index]:
                partial.write(each.entry, each.index, payload)
                yield each.size
            elif each.tries + 1 < TRIES:
                queue.append(_Wanted(each.entry, each.index, each.tries + 1))
            else:
                raise IntegrityError(
                    f"{each.entry.path} of {name} came {TRIES} times with other bytes than its "
                    "manifest says. What is published here is unharmed.",
                    hint="gpujob checkpoints verify",
                )

    def _send(self, upload: Any, needed: list[_Wanted], source: Path) -> Iterator[int]:
        def request(each: _Wanted) -> tuple[dict[str, Any], bytes]:
            header = {"op": "write", "upload": upload, "path": each.entry.path}
            return {**header, "chunk": each.index}, _read(source, each)

        for each, _ in self._pipeline(deque(needed), request):
            yield each.size

    def _pipeline(
        self,
        queue: deque[_Wanted],
        request: Callable[[_Wanted], tuple[dict[str, Any], bytes]],
    ) -> Iterator[tuple[_Wanted, bytes]]:
        """Each item with its reply's payload, in order; the queue may grow meanwhile."""
        flight: deque[_Wanted] = deque()
        try:
            while queue or flight:
                while queue and _has_room(flight, queue[0]):
                    header, payload = request(queue[0])
                    flight.append(queue.popleft())
                    self._frames.send(header, payload)
                _, payload = self._frames.receive()
                yield flight.popleft(), payload
        finally:
            if flight:  # replies are under way that nobody will read
                self._frames.drop()

    def _needed(self, reply: dict[str, Any], manifest: Manifest) -> list[_Wanted]:
        entries = {entry.path: entry for entry in manifest.files}
        with self._frames.mapped():
            try:
                asked = dict.fromkeys((str(path), int(index)) for path, index in reply["need"])
                needed = [_Wanted(entries[path], index) for path, index in asked]
            except (KeyError, TypeError, ValueError) as error:
                raise ContractError("it asks for what was not offered") from error
            if any(not 0 <= each.index < len(each.entry.chunks) for each in needed):
                raise ContractError("it asks for a chunk that does not exist")
            return needed


def _chunks(files: Iterable[FileEntry]) -> Iterator[_Wanted]:
    for entry in files:
        for index in range(len(entry.chunks)):
            yield _Wanted(entry, index)


def _has_room(flight: deque[_Wanted], following: _Wanted) -> bool:
    if not flight:
        return True
    size = sum(each.size for each in flight) + following.size
    return len(flight) < IN_FLIGHT_REQUESTS and size <= IN_FLIGHT_BYTES


def _finish(partial: Partial) -> None:
    """Chunks agree; now the whole files, whose hashes the manifest's digest vouches for."""
    for entry in partial.manifest.files:
        if not entry.chunks:
            partial.create_empty(entry)
        if entry.sha256 != (entry.chunks[0] if len(entry.chunks) == 1 else partial.hash(entry)):
            partial.journal.remove()
            raise IntegrityError(
                f"The manifest of {entry.path} contradicts itself: its chunks are not its whole. "
                "What is published here is unharmed.",
                hint="gpujob checkpoints verify",
            )
        partial.seal(entry)
    partial.finish()


def _check_tree(manifest: Manifest) -> None:
    """A name cannot be a file and a folder at once."""
    files = {entry.path for entry in manifest.files}
    for path in files:
        parts = path.split("/")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise IntegrityError(f"The manifest has a file inside the file of {path!r}.")


def _read(source: Path, wanted: _Wanted) -> bytes:
    path = source / wanted.entry.path
    try:
        with path.open("rb") as file:
            file.seek(wanted.index * CHUNK_BYTES)
            data = file.read(wanted.size)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read any more: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != wanted.entry.chunks[wanted.index]:
        raise IntegrityError(
            f"{path} is not what it was at launch, so it was not sent.",
            hint="launch again to run with the file as it is now",
        )
    return data
