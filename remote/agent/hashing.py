"""Hashing with the cores that the trainer does not need. Threads are enough: hashlib lets go of the
interpreter's lock."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, List, Optional, Type

from remote.contract import CHUNK_BYTES, FileEntry, hash_stream

MAX_WORKERS = 8  # more than a disk can feed
_NICE = 5  # hashing shall not take the processor from the trainer
_AHEAD = 2  # chunks of a file in memory besides the one that is read
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Hashers:
    """Workers for whole files, and as many for the chunks of one. A context manager."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.files = ThreadPoolExecutor(workers, "file", initializer=be_nice)
        self._chunks = ThreadPoolExecutor(workers, "chunk", initializer=be_nice)

    def __enter__(self) -> Hashers:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.files.shutdown(wait=True)
        self._chunks.shutdown(wait=True)

    def entry(self, stream: BinaryIO, path: str, size: int, executable: bool) -> FileEntry:
        """As `hash_stream`: one read, and the chunks' digests beside the whole one's."""
        if self.workers == 1 or size <= 2 * CHUNK_BYTES:
            return hash_stream(stream, path, executable)
        whole, read = hashlib.sha256(), 0
        chunks: List[Future[str]] = []
        for block in iter(lambda: stream.read(CHUNK_BYTES), b""):
            chunks.append(self._chunks.submit(_digest, block))
            whole.update(block)
            read += len(block)
            if len(chunks) > _AHEAD:
                chunks[-_AHEAD - 1].result()
        digests = tuple(chunk.result() for chunk in chunks)
        return FileEntry(path, read, whole.hexdigest(), digests, executable)


def spare_cores(ranks: int) -> int:
    """Cores of this box that its `ranks` trainer processes leave over; at least one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text().split()
        cores = min(cores, int(quota) // int(period)) if quota != "max" else cores
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no limit that we can read
    return max(1, min(MAX_WORKERS, cores - ranks))


def be_nice() -> None:
    """On Linux a thread has its own priority."""
    os.nice(_NICE)


def _digest(block: bytes) -> str:
    return hashlib.sha256(block).hexdigest()
