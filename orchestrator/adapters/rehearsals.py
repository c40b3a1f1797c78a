"""The folders of rehearsals: each ends with its boxes, also when whoever rehearsed was killed."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.adapters.local import LocalProvider
from orchestrator.ports import Clock

LOCK = "lock"


@contextmanager
def rehearsal_folder(root: Path, name: str, clock: Clock, *, keep: bool) -> Iterator[Path]:
    """A new folder below `root`. When it is over its boxes are ended, and without `keep` it is
    deleted. What a killed rehearsal left is ended first."""
    _sweep(root, clock)
    folder = root / f"{name}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True, mode=0o700)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        _end(folder, clock, keep=keep)
        os.close(lock)


def _sweep(root: Path, clock: Clock) -> None:
    """A lock that nobody holds is a dead one's; a folder without one was kept on purpose."""
    for path in sorted(root.glob(f"*/{LOCK}")):
        with suppress(OSError):
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end(path.parent, clock, keep=False)
            finally:
                os.close(lock)


def _end(folder: Path, clock: Clock, *, keep: bool) -> None:
    provider = LocalProvider(folder / "state" / "local", clock=clock)
    for each in provider.list().instances:
        provider.terminate(each.provider_id)
    if keep:
        (folder / LOCK).unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
