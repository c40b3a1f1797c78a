"""Files that are there whole or not at all, and still there after a power loss."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StorageBlocked


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write beside, fsync, rename over `path`, fsync the folder: a reader sees old or new."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path, *, mode: int = 0o700) -> None:
    """Create `path` and its missing parents so that they survive a power loss. Repeatable."""
    if path.is_dir():
        return
    make_folder(path.parent, mode=mode)
    path.mkdir(mode=mode, exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in `path` durable. An fsync that failed is never tried again as good."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(root: Path) -> None:
    """`sync_folder` for `root` and every folder below it, deepest first."""
    for folder, _, _ in os.walk(root, topdown=False):
        sync_folder(Path(folder))


@contextmanager
def disk_room(where: Path, *, safe: str) -> Iterator[None]:
    """Turn a disk that takes nothing more into StorageBlocked, which says where, and what is
    `safe` all the same."""
    try:
        yield
    except OSError as error:
        reason = _why_blocked(error, where)
        if reason is None:
            raise
        raise blocked(where, reason, safe=safe) from error


def blocked(where: Path, reason: str, *, safe: str) -> StorageBlocked:
    """What a person has to know about a disk that takes nothing more, and can do."""
    what, hint = _BLOCKED[reason]
    return StorageBlocked(
        f"{what.format(where=where)} {safe}", hint=hint.format(where=where), reason=reason
    )


_BLOCKED = {
    "full": (
        "The disk that holds {where} is full.",
        "free some space: df -h {where}; it is tried again by itself",
    ),
    "read-only": (
        "{where} cannot be written.",
        "make it writable (ls -ld {where}; mount); it is tried again by itself",
    ),
    "missing": (
        "{where} is not there: its disk may not be mounted.",
        "mount the disk; it is tried again by itself",
    ),
    "failing": (
        "The disk that holds {where} fails.",
        "look at dmesg; it is tried again by itself",
    ),
}


def _why_blocked(error: OSError, where: Path) -> str | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "full"
    if error.errno == errno.EROFS:
        return "read-only"
    if error.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENXIO, errno.ENODEV):
        return "failing"
    if error.errno in (errno.EACCES, errno.EPERM) and not os.access(where, os.W_OK):
        return "read-only" if where.exists() else "missing"
    # One file that is not there is the caller's affair; without the folder nothing can be.
    return "missing" if error.errno == errno.ENOENT and not where.exists() else None
