"""Files that are there whole or not at all, also after the power went."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Optional


def utc_now() -> str:
    """Now, ISO 8601 with milliseconds and `Z`."""
    now = datetime.now(timezone.utc)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by a file of `data`, readable by its owner alone."""
    temporary = path.with_name(".%s.%d.new" % (path.name, os.getpid()))
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        temporary.replace(path)
    except OSError:  # a full disk: what it took of it is not left there
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def write_json(path: Path, record: Dict[str, Any], *, durable: bool = True) -> None:
    write_bytes(path, json.dumps(record, sort_keys=True).encode() + b"\n", durable=durable)


def read_json(path: Path) -> Optional[Dict[str, Any]]:
    """The object in `path`; None when there is no such file or it holds something else."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
