"""One instance's folder: what it is on record as, and the lock that says it is being made.

instance.json   the intent, durable before any process starts
identity        boot id and /proc/PID/stat of the one process that all others die with
namespace       the pid namespace it opened ("pid:[…]") and /proc/PID/stat of its first process;
                none under the supervisor
sshd/           host key, authorized keys, configuration, log: outside the box's home
home/           what the box calls home
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.adapters.durable import write_whole
from orchestrator.adapters.local.process import Identity, Namespace, read_identity, read_namespace
from orchestrator.core.codec import from_json, to_json
from orchestrator.errors import Transient

LOCK_TRY_S = 0.02
LOG_BYTES = 64 * 1024


@dataclass(frozen=True)
class Record:
    """What `create` promised. `isolation` is "namespace" or "supervisor"."""

    provider_id: str
    instance: str
    mark: str
    offer: str
    usd_per_hour: float
    created_at: datetime
    user: str
    port: int
    isolation: str
    v: int = 1

    @property
    def marker(self) -> str:
        """What every session on the box has in its environment."""
        return f"GPUJOB_BOX={self.provider_id}"


@dataclass(frozen=True)
class Folder:
    """The paths of one instance."""

    path: Path

    @property
    def home(self) -> Path:
        return self.path / "home"

    @property
    def sshd(self) -> Path:
        return self.path / "sshd"

    @property
    def log(self) -> Path:
        return self.sshd / "log"

    def record(self) -> Record | None:
        """The intent; None when the folder is not there (any more)."""
        try:
            text = (self.path / "instance.json").read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return from_json(Record, json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Transient(
                f"{self.path}/instance.json cannot be read ({error}), so what this machine "
                "rents is not known. Nothing was changed.",
                hint=f"look at it, and remove {self.path} once no process of it is left",
            ) from error

    def write(self, record: Record) -> None:
        write_whole(
            self.path / "instance.json", json.dumps(to_json(record), indent=1).encode() + b"\n"
        )

    def identity(self) -> Identity | None:
        return read_identity(self.path / "identity")

    def namespace(self) -> Namespace | None:
        """The box's pid namespace; None until it has opened one."""
        return read_namespace(self.path / "namespace")

    def listens(self) -> bool:
        """Whether the sshd that was started last said that it has its port."""
        try:
            with self.log.open("rb") as file:
                return b"Server listening on" in file.read(4096)
        except FileNotFoundError:
            return False

    def said(self) -> str:
        """The end of sshd's log, at most 64 KiB."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - LOG_BYTES))
                return file.read(LOG_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return ""

    @contextmanager
    def locked(self, *, timeout_s: float = 0.0) -> Iterator[int | None]:
        """Hold the folder's lock, which dies with its holder; None when another holds it for
        longer than `timeout_s`, or the folder is gone."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield None
            return
        try:
            yield descriptor if _lock(descriptor, timeout_s) else None
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Take the folder out of sight in one step, then delete it. Repeatable."""
        gone = self.path.with_name(f".gone-{self.path.name.removeprefix('.new-')}")
        with suppress(FileNotFoundError):
            self.path.rename(gone)
        delete(gone)


def delete(path: Path) -> None:
    """Remove a tree, also one whose owner took its own right to write away."""

    def give_rights(function: Callable[[str], Any], name: str, info: Any) -> None:
        if isinstance(info[1], FileNotFoundError):
            return
        for each in (Path(name).parent, Path(name)):
            if each.is_dir() and not each.is_symlink():
                each.chmod(0o700)
        shutil.rmtree(name) if Path(name).is_dir() else function(name)

    shutil.rmtree(path, onerror=give_rights)


def _lock(descriptor: int, timeout_s: float) -> bool:
    for _ in range(1 + int(timeout_s / LOCK_TRY_S)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            select.select([], [], [], LOCK_TRY_S if timeout_s else 0)
        else:
            return True
    return False
