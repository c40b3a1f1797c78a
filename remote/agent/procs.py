"""Processes as /proc tells them. A pid alone names nothing: it always goes with a start time."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process for good: `started` is its start in clock ticks since the boot of the machine,
    so that another process with the same pid is not mistaken for it."""

    pid: int
    started: str

    @staticmethod
    def of(pid: int) -> Optional[Process]:
        """The process that runs as `pid` now; a zombie runs no more."""
        found = _stat(pid)
        if found is None or found[0] in "ZX":
            return None
        return Process(pid, found[2])

    @staticmethod
    def from_json(record: Optional[Dict[str, Any]]) -> Optional[Process]:
        try:
            return Process(int(record["pid"]), str(record["started"])) if record else None
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> Dict[str, Any]:
        return {"pid": self.pid, "started": self.started}

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this process, and to no successor of its pid. Whether it was there."""
        if not self.alive:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    def send_group(self, number: signal.Signals) -> bool:
        """The same for the whole process group that this process leads."""
        if not self.alive:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
            return True
        return False


def descendants(ancestors: Iterable[Process]) -> List[Process]:
    """Everything that runs below any of `ancestors` (themselves not), parents first."""
    children: Dict[int, List[Process]] = {}
    for pid in pids():
        found = _stat(pid)
        if found and found[0] not in "ZX":
            children.setdefault(found[1], []).append(Process(pid, found[2]))
    todo = [each.pid for each in ancestors if each.alive]
    below: List[Process] = []
    while todo:
        added = children.pop(todo.pop(), [])
        below += added
        todo += [each.pid for each in added]
    return below


def environment(process: Process, name: str) -> Optional[str]:
    """The value of a variable in the environment that the process was started with."""
    try:
        data = (PROC / str(process.pid) / "environ").read_bytes()
    except OSError:
        return None
    key = os.fsencode(name) + b"="
    for pair in data.split(b"\0"):
        if pair.startswith(key):
            return os.fsdecode(pair[len(key) :])
    return None


def pids() -> Iterator[int]:
    for name in os.listdir(PROC):
        if name.isdigit():
            yield int(name)


def _stat(pid: int) -> Optional[Tuple[str, int, str]]:
    """State letter, parent's pid and start time; the command's name may hold anything."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    words = text.rpartition(b")")[2].split()
    return words[0].decode(), int(words[1]), words[19].decode()
