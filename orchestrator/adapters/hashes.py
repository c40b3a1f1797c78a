"""Hashes of local files, kept by path, size and mtime: a data set is read once, not every plan."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

from orchestrator.adapters.durable import make_folder, write_whole
from orchestrator.errors import IntegrityError
from remote.contract import ContractError, FileEntry, hash_stream

# A file touched this lately could change again within one tick of its file system's clock.
SETTLED_NS = 2_000_000_000
SMALL_BYTES = 1024 * 1024


class HashCache:
    """`path` may be None: nothing is kept. A cache that cannot be read or written is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] | None = None
        self._changed = False

    def entry(self, root: Path, path: str) -> FileEntry:
        """The entry of one file. Raises IntegrityError when it changes while it is read."""
        found = (root / path).stat()
        key, tag = str((root / path).resolve()), [found.st_size, found.st_mtime_ns]
        known = self._load().get(key)
        executable = bool(found.st_mode & stat.S_IXUSR)
        if isinstance(known, dict) and known.get("tag") == tag:
            entry = _decode(known.get("entry"), path, executable)
            if entry is not None:
                return entry
        entry = hash_file(root, path)
        if found.st_size > SMALL_BYTES and time.time_ns() - found.st_mtime_ns > SETTLED_NS:
            self._load()[key] = {"tag": tag, "entry": entry.to_json()}
            self._changed = True
        return entry

    def save(self) -> None:
        if self._path is None or not self._changed:
            return
        try:
            make_folder(self._path.parent)
            write_whole(self._path, json.dumps({"v": 1, "files": self._load()}).encode())
        except OSError:
            return
        self._changed = False

    def _load(self) -> dict[str, Any]:
        if self._known is None:
            self._known = _read(self._path) if self._path else {}
        return self._known


def hash_file(root: Path, path: str) -> FileEntry:
    """Read one file and return its entry. Raises IntegrityError when it changes meanwhile."""
    with (root / path).open("rb") as stream:
        before = os.fstat(stream.fileno())
        entry = hash_stream(stream, path, bool(before.st_mode & stat.S_IXUSR))
        after = os.fstat(stream.fileno())
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not same or entry.size != after.st_size:
        raise IntegrityError(
            f"{root / path} changed while it was read, so it cannot be sent as it was.",
            hint="wait until nothing writes to it, and try again",
        )
    return entry


def _decode(record: Any, path: str, executable: bool) -> FileEntry | None:
    try:
        return FileEntry.from_json({**record, "path": path, "executable": executable})
    except (ContractError, KeyError, TypeError, ValueError):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
        return dict(record["files"]) if record["v"] == 1 else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
