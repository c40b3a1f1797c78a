"""What the agent saw while a trainer ran: a line each of `sights.jsonl`, for whoever judges the
run. No fact: a line may be lost, and nothing is decided by one alone."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from remote.agent.durable import utc_now
from remote.contract import PROTOCOL

MOST_BYTES = 256 * 1024 * 1024
MOST_LINE = 2 * 1024 * 1024
# What else is told leaves room for what a hang is known by.
SHARE = 0.75


class Sights:
    """Appends, from any thread. A file that is full, or a disk, takes no more: nothing raises."""

    def __init__(self, path: Path, *, most: int = MOST_BYTES) -> None:
        self._path = path
        self._most = most
        self._lock = threading.Lock()
        with contextlib.suppress(OSError):
            _end_line(path)

    def tell(self, kind: str, attempt: int, *, dear: bool = False, **data: Any) -> bool:
        """Whether the line was taken. `dear` lines are taken as long as there is any room."""
        record = {"v": PROTOCOL, "kind": kind, "at": utc_now(), "attempt": attempt, **data}
        line = json.dumps(record).encode() + b"\n"
        if len(line) > MOST_LINE:
            return False
        with self._lock:
            try:
                return _append(self._path, line, self._most if dear else self._most * SHARE)
            except OSError:
                return False


def _append(path: Path, line: bytes, most: float) -> bool:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size + len(line) > most:
            return False
        if os.write(descriptor, line) == len(line):
            return True
        os.ftruncate(descriptor, size)
        return False
    finally:
        os.close(descriptor)


def _end_line(path: Path) -> None:
    """The agent of before may have died within a line: what was sent of it stays as it is."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
