"""Whole files, once their chunks are here: hashed in order behind the transfer, made read-only and
durable.

The digest that a box tells of a checkpoint vouches for whole files, and its manifest could tell
chunks of other bytes. To hash them as they grow costs no time at the end."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.partial import Chunk as Key
from orchestrator.adapters.partial import Partial
from orchestrator.adapters.stream.chunk import Chunk
from orchestrator.errors import IntegrityError
from remote.contract import CHUNK_BYTES, FileEntry

WORKERS = min(4, os.cpu_count() or 1)
BLOCK_BYTES = 1024 * 1024
SAFE = "Nothing is lost: the box keeps the checkpoint until it is held here."


@dataclass
class _Growing:
    entry: FileEntry
    here: set[int]
    hashed: int = 0
    hasher: Any = field(default_factory=hashlib.sha256)
    is_busy: bool = False


class Wholes:
    """The files of `partial`; `held` are the chunks that were here before. A context manager."""

    def __init__(self, partial: Partial, held: set[Key]) -> None:
        self._partial = partial
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, "whole")
        self._futures: list[Future[None]] = []
        self._files: dict[str, _Growing] = {}
        self._held = held

    def __enter__(self) -> Wholes:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self) -> None:
        """Take up the files that nothing has to come for."""
        for entry in self._partial.manifest.files:
            if all((entry.path, index) in self._held for index in range(len(entry.chunks))):
                self._of(entry)
                self._advance(entry.path)

    def grew(self, chunk: Chunk) -> None:
        """This chunk of a file is verified."""
        with self._lock:
            self._of(chunk.entry).here.add(chunk.index)
        self._advance(chunk.entry.path)

    def failed(self) -> BaseException | None:
        """What went wrong until now."""
        with self._lock:
            done = [future for future in self._futures if future.done()]
            self._futures = [future for future in self._futures if not future.done()]
        return next((error for future in done if (error := future.exception())), None)

    def finish(self) -> None:
        """Wait until every file is hashed and durable. Raises IntegrityError, StorageBlocked."""
        while True:
            with self._lock:
                waiting = self._futures
                self._futures = []
            if not waiting:
                return
            for future in waiting:
                future.result()

    def _of(self, entry: FileEntry) -> _Growing:
        if entry.path not in self._files:
            here = {i for i in range(len(entry.chunks)) if (entry.path, i) in self._held}
            self._files[entry.path] = _Growing(entry, here)
        return self._files[entry.path]

    def _advance(self, path: str) -> None:
        with self._lock:
            growing = self._files[path]
            if not growing.is_busy and self._is_next(growing):
                growing.is_busy = True
                self._futures.append(self._pool.submit(self._hash, growing))

    def _hash(self, growing: _Growing) -> None:
        """As far as the file is here; the end of it when that is all."""
        entry = growing.entry
        while True:
            with self._lock:
                is_next = growing.hashed < len(entry.chunks) and self._is_next(growing)
                growing.is_busy = is_next
            if not is_next:
                break
            self._hash_chunk(growing)
        if growing.hashed == len(entry.chunks):
            self._seal(growing)

    def _is_next(self, growing: _Growing) -> bool:
        return growing.hashed in growing.here or not growing.entry.chunks

    def _hash_chunk(self, growing: _Growing) -> None:
        entry = growing.entry
        if len(entry.chunks) > 1:
            first = growing.hashed * CHUNK_BYTES
            end = min(entry.size, first + CHUNK_BYTES)
            for offset in range(first, end, BLOCK_BYTES):
                block = self._partial.read(entry, offset, min(BLOCK_BYTES, end - offset))
                growing.hasher.update(block)
        growing.hashed += 1

    def _seal(self, growing: _Growing) -> None:
        entry = growing.entry
        if not entry.chunks:
            self._partial.create_empty(entry)
        # The only chunk of a file was hashed when it came, and is the file.
        found = entry.chunks[0] if len(entry.chunks) == 1 else growing.hasher.hexdigest()
        if found != entry.sha256:
            self._partial.journal.remove()
            raise IntegrityError(
                f"The manifest of {entry.path} contradicts itself: its chunks are not its whole. "
                "What is published here is unharmed.",
                hint="gpujob checkpoints verify",
            )
        with disk_room(self._partial.root, safe=SAFE):
            self._partial.seal(entry)
        with self._lock:
            self._files.pop(entry.path, None)
