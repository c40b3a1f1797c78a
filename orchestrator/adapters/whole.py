"""Whole files, once all their chunks are verified: made read-only and durable while others still
come, so that little is left to wait for at the end of a transfer."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.partial import Chunk, Partial
from remote.contract import FileEntry

WORKERS = min(4, os.cpu_count() or 1)


class Wholes:
    """The files of `partial`; `held` are the chunks that were here before, and `safe` is what to
    say when the disk here takes nothing more. A context manager."""

    def __init__(self, partial: Partial, held: set[Chunk], *, safe: str) -> None:
        self._partial = partial
        self._safe = safe
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, "whole")
        self._futures: list[Future[None]] = []
        self._missing: dict[str, int] = {}
        for entry in partial.manifest.files:
            chunks = ((entry.path, index) for index in range(len(entry.chunks)))
            self._missing[entry.path] = sum(chunk not in held for chunk in chunks)

    def __enter__(self) -> Wholes:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self) -> None:
        """Take up the files that nothing has to come for."""
        for entry in self._partial.manifest.files:
            if not self._missing[entry.path]:
                self._seal_soon(entry)

    def grew(self, entry: FileEntry) -> None:
        """One more chunk of a file is verified."""
        with self._lock:
            self._missing[entry.path] -= 1
            is_whole = not self._missing[entry.path]
        if is_whole:
            self._seal_soon(entry)

    def failed(self) -> BaseException | None:
        """What went wrong until now."""
        with self._lock:
            done = [future for future in self._futures if future.done()]
            self._futures = [future for future in self._futures if not future.done()]
        return next((error for future in done if (error := future.exception())), None)

    def finish(self) -> None:
        """Wait until every file is durable. Raises StorageBlocked."""
        with self._lock:
            waiting, self._futures = self._futures, []
        for future in waiting:
            future.result()

    def _seal_soon(self, entry: FileEntry) -> None:
        future = self._pool.submit(self._seal, entry)
        with self._lock:
            self._futures.append(future)

    def _seal(self, entry: FileEntry) -> None:
        with disk_room(self._partial.root, safe=self._safe):
            if not entry.chunks:
                self._partial.create_empty(entry)
            self._partial.seal(entry)
