"""Ends the sharing between a seal and the trainer's own files, once the seal was told of: a copy
takes as long as hashing, and the controller need not wait for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from remote.agent.replies import Refusal
from remote.agent.seal import Seal
from remote.agent.trees import copy_verified
from remote.contract import FileEntry

MAX_BYTES = 1024 * 1024 * 1024  # a few seconds of a disk; what is larger stays linked and watched
_RESERVE = 0.05  # of the disk: the trainer has to write its next checkpoint


def make_private(seal: Seal) -> None:
    """Replace linked files by copies with the same bytes and the same mtime, one by one. A file
    that the trainer wrote into meanwhile is left as it is: it is reported as rewritten.

    Raises OSError when the disk fails; what was replaced until then is fine."""
    for entry in seal.manifest.files:
        with contextlib.suppress(FileNotFoundError, Refusal):
            path = seal.folder / "tree" / entry.path
            found = path.lstat()
            if found.st_nlink > 1 and seal.is_intact(entry.path, found) and _fits(path, entry):
                _replace(path, seal.folder / "private.new", entry, found)


def _fits(path: Path, entry: FileEntry) -> bool:
    disk = shutil.disk_usage(path.parent)
    return entry.size <= MAX_BYTES and disk.free - 2 * entry.size > disk.total * _RESERVE


def _replace(path: Path, copy: Path, entry: FileEntry, found: os.stat_result) -> None:
    try:
        copy.unlink(missing_ok=True)
        copy_verified(path, copy, entry)
        copy.chmod(0o555 if entry.executable else 0o444)
        os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
        copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)
