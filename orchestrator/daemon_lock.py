"""One daemon a state folder: it holds a lock on a file, and says its pid and version in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def hold_lock(state: Path, version: str | None) -> Iterator[bool]:
    """Hold the daemon's lock while inside; False when another process has it. With a version
    the holder says who it is; without one it only looks."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state / "daemon.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if version is None:
            yield True
            return
        said = {"v": 1, "pid": os.getpid(), "version": version}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(said).encode(), 0)
        yield True
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
