"""Trees on their way to a box: what it needs of them, and what one connection sends of that."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.adapters.frames import Frames, refusal
from orchestrator.adapters.partial import Chunk as Key
from orchestrator.adapters.stream.chunk import Chunk, Part, Range
from orchestrator.adapters.stream.crew import Lane
from orchestrator.adapters.stream.work import Work
from orchestrator.errors import IntegrityError
from remote.contract import CHUNK_BYTES, ContractError, Manifest

SLOW_DISK_BYTES_S = 20e6  # how fast a box is trusted to hash what it holds, at the least
BLOCK_BYTES = 1024 * 1024


class Push:
    """One transfer of `manifest`, whose files lie below `source`. `received` is what the box has
    of the chunks that it needs."""

    def __init__(self, source: Path, manifest: Manifest, control: Frames) -> None:
        self.received: dict[Key, list[Range]] = {}
        self._source = source
        self._manifest = manifest
        self._control = control
        self._patience_s = manifest.size_bytes / SLOW_DISK_BYTES_S
        self._upload = ""
        self._same: set[Key] = set()
        self._checking = threading.Lock()

    def offer(self, dest: str, mode: str) -> list[Key]:
        """The chunks that the box needs. Raises Unreachable when it asks for what it was not
        offered."""
        request = {"op": "offer", "dest": dest, "mode": mode}
        with self._control.working():
            reply, _ = self._control.ask(
                request, self._manifest.encode(), patience_s=self._patience_s
            )
            with self._control.mapped():
                self._upload = str(reply.get("upload"))
                need = self._needed(reply.get("need"))
                self.received = self._had(reply.get("have", []), need)
                return need

    def bind(self, work: Work) -> Callable[[Lane], None]:
        """What one connection does until `work` is done."""

        def run(lane: Lane) -> None:
            flight: deque[list[Part]] = deque()
            while not lane.is_over:
                self._send(lane, work, flight)
                if flight:
                    self._receive(lane, work, flight)
                else:
                    work.wait(lane.pause_s)

        return run

    def commit(self, dest: str) -> list[Key]:
        """Have the box verify the tree and put it in place; else the chunks that came wrong."""
        request = {"op": "commit", "upload": self._upload}
        with self._control.working():
            reply, _ = self._control.hear(request, patience_s=self._patience_s)
            if reply.get("error") == "changed" and reply.get("need"):
                with self._control.mapped():
                    self.received = {}
                    return self._needed(reply["need"])
        if "error" in reply:
            raise refusal(reply)
        if reply.get("digest") != self._manifest.digest:
            raise IntegrityError(
                f"The box put another tree into {dest} than the one sent.",
                hint="gpujob teardown, then launch again",
            )
        return []

    def _send(self, lane: Lane, work: Work, flight: deque[list[Part]]) -> None:
        while lane.has_room(sum(part.size for parts in flight for part in parts), len(flight)):
            parts = work.take(lane.who)
            if not parts:
                return
            payload = b"".join(map(self._read, parts))
            lane.spend(len(payload))
            flight.append(parts)
            told = [part.to_json() for part in parts]
            lane.send({"op": "write", "upload": self._upload, "parts": told}, payload)

    def _receive(self, lane: Lane, work: Work, flight: deque[list[Part]]) -> None:
        header = lane.head()
        with lane.frames.mapped():
            if header["bytes"]:
                raise ContractError("a reply with a payload that nobody asked for")
        lane.answered()
        for part in flight.popleft():
            lane.heard(part.size)
            _landed(lane, work, part)
            work.arrived(lane.who, part)

    def _read(self, part: Part) -> bytes:
        """The bytes of `part`, of a chunk that is what it was when the manifest was made."""
        entry, chunk = part.chunk.entry, part.chunk
        path = self._source / entry.path
        try:
            with path.open("rb") as file:
                if part.size == chunk.size:
                    file.seek(part.offset)
                    data = file.read(part.size)
                    is_same = hashlib.sha256(data).hexdigest() == chunk.expected
                else:
                    is_same = self._is_same(chunk, file)
                    file.seek(part.offset)
                    data = file.read(part.size)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read any more: {error.strerror}.") from error
        if is_same and len(data) == part.size:
            return data
        raise IntegrityError(
            f"{path} is not what it was at launch, so it was not sent.",
            hint="launch again to run with the file as it is now",
        )

    def _is_same(self, chunk: Chunk, file: Any) -> bool:
        """Hashed before the first byte of it is sent; the box hashes it again."""
        key = chunk.entry.path, chunk.index
        with self._checking:
            if key in self._same:
                return True
        digest = hashlib.sha256()
        file.seek(chunk.start)
        for first in range(0, chunk.size, BLOCK_BYTES):
            digest.update(file.read(min(BLOCK_BYTES, chunk.size - first)))
        is_same = digest.hexdigest() == chunk.expected
        with self._checking:
            if is_same:
                self._same.add(key)
        return is_same

    def _needed(self, need: Any) -> list[Key]:
        """As asked for, in the order of the manifest."""
        counts = {entry.path: len(entry.chunks) for entry in self._manifest.files}
        try:
            asked = {(str(path), int(index)) for path, index in need}
        except (TypeError, ValueError) as error:
            raise ContractError("it asks for what was not offered") from error
        if any(not 0 <= index < counts.get(path, 0) for path, index in asked):
            raise ContractError("it asks for a chunk that does not exist")
        return [key for key in _keys(self._manifest) if key in asked]

    def _had(self, have: Any, need: list[Key]) -> dict[Key, list[Range]]:
        """A chunk of which it claims to have all, and yet needs, is sent whole."""
        sizes = {entry.path: entry.size for entry in self._manifest.files}
        found: dict[Key, list[Range]] = {key: [] for key in need}
        try:
            for path, offset, length in have:
                key, first = (path, offset // CHUNK_BYTES), offset % CHUNK_BYTES
                is_inside = length > 0 and first + length <= CHUNK_BYTES
                if key in found and is_inside and offset + length <= sizes[path]:
                    found[key].append((first, first + length))
        except (TypeError, ValueError, KeyError) as error:
            raise ContractError("it says it has what was not offered") from error
        size = {key: min(CHUNK_BYTES, sizes[key[0]] - key[1] * CHUNK_BYTES) for key in found}
        return {
            key: ranges
            for key, ranges in found.items()
            if sum(end - first for first, end in ranges) < size[key]
        }


def _landed(lane: Lane, work: Work, part: Part) -> None:
    """The box has the bytes, perhaps twice by now."""
    first = part.first
    while useful := work.begin(lane.who, part.chunk, first, part.end):
        (low, high), hashed = useful
        first = high
        if work.finish(part.chunk, (low, high), hashed=hashed, kept=True):
            work.done(part.chunk)


def _keys(manifest: Manifest) -> Iterator[Key]:
    for entry in manifest.files:
        for index in range(len(entry.chunks)):
            yield entry.path, index
