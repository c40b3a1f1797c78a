"""One daemon a state folder: it holds a lock on a file, and says in it who it is.

Who only wants to know reads the words and never touches the lock, so that looking cannot make a
starting daemon believe that another one runs. Words count while the process they name lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.holder import Holder


@dataclass(frozen=True)
class Words:
    """What a living daemon says of itself."""

    holder: Holder
    version: str


class Lock:
    """The lock of a state folder, held. `speak` says who holds it; `hush` takes that back."""

    def __init__(self, descriptor: int, version: str) -> None:
        self._descriptor = descriptor
        self._version = version

    def speak(self) -> None:
        me = Holder.current()
        words = {"v": 1, **asdict(me), "version": self._version}
        self.hush()
        os.pwrite(self._descriptor, json.dumps(words).encode(), 0)

    def hush(self) -> None:
        os.ftruncate(self._descriptor, 0)


@contextlib.contextmanager
def hold_lock(state: Path, version: str) -> Iterator[Lock | None]:
    """Hold the daemon's lock while inside and say so; None when another process has it."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(_path(state), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        lock = Lock(descriptor, version)
        lock.speak()
        yield lock
        lock.hush()
    finally:
        os.close(descriptor)


def read_words(state: Path) -> Words | None:
    """What the daemon of this folder says; None when none lives, or it is about to end."""
    try:
        record = json.loads(_path(state).read_text())
        holder = Holder(str(record["boot"]), int(record["pid"]), int(record["started"]))
        words = Words(holder, str(record["version"]))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return words if holder.lives() else None


def _path(state: Path) -> Path:
    return state / "daemon.lock"
