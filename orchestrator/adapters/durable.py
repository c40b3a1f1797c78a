"""Files that are there whole or not at all, and still there after a power loss."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import GpujobError


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
    """Turn a full disk into an error that says where, and what is `safe` all the same."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise GpujobError(
            f"The disk that holds {where} is full. {safe}",
            hint=f"free some space, then try again: df -h {where}",
        ) from error
