"""Small records that are written in place, in space that they took while there was some: a disk
that is full takes them like any other."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

SLOT_BYTES = 16 * 1024


def write_slot(path: Path, record: Dict[str, Any]) -> None:
    """Raises OSError where the disk is full and `path` had no such record, or a smaller one that
    was longer than SLOT_BYTES."""
    data = json.dumps(record, sort_keys=True).encode().ljust(SLOT_BYTES - 1) + b"\n"
    with _locked(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as file:
        if os.pwrite(file, data, 0) != len(data):
            raise OSError("the disk took only a part of %s" % path.name)
        os.ftruncate(file, len(data))


def read_slot(path: Path) -> Optional[Dict[str, Any]]:
    """What was written last; None when nothing was."""
    try:
        with _locked(path, os.O_RDONLY, fcntl.LOCK_SH) as file:
            record = json.loads(os.pread(file, os.fstat(file).st_size, 0))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


@contextlib.contextmanager
def _locked(path: Path, flags: int, lock: int) -> Iterator[int]:
    """A reader must not see half of what is being written."""
    file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, lock)
        yield file
    finally:
        os.close(file)
