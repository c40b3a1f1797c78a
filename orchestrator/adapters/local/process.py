"""Which process is which, and whether it lives: pids are reused, zombies look alive, and a
machine that was restarted has other processes under the same numbers."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Identity:
    """A process for good: the machine's boot, the pid, and when it started (clock ticks)."""

    boot: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.boot}:{self.pid}:{self.started}"

    @property
    def alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        return self.boot == boot_id() and _started(self.pid) == self.started


def read_identity(path: Path) -> Identity | None:
    """What a box's first shell wrote of itself: boot id, then its own /proc/PID/stat."""
    try:
        boot, stat = path.read_text().splitlines()[:2]
        return Identity(boot, int(stat.split(" ", 1)[0]), _start_of(stat))
    except (FileNotFoundError, ValueError, IndexError):
        return None


@dataclass(frozen=True)
class Namespace:
    """A pid namespace for good: the kernel gives the number of one that ended to the next, so
    when its first process started belongs to it (None: it could not say)."""

    link: str
    started: int | None = None

    def holds(self, pid: int) -> bool:
        """Whether `pid` is in it. What is left when the first process is dead is dying too."""
        if link(pid, "ns/pid") != self.link or link(os.getpid(), "ns/pid") == self.link:
            return False
        first = next((each for each in _pids() if _is_first_in(self.link, each)), None)
        return None in (first, self.started) or _started(first or 0) in (None, self.started)


def read_namespace(path: Path) -> Namespace | None:
    """What a box's first process wrote of its namespace."""
    try:
        name, stat = path.read_text().splitlines()[:2]
        return Namespace(name, _start_of(stat))
    except (FileNotFoundError, ValueError, IndexError):
        return None


def boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def watched(pid: int) -> Iterator[int | None]:
    """A descriptor that becomes readable when `pid` ends; None when it has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def wait_end(descriptor: int | None, timeout_s: float) -> bool:
    """Whether the watched process ended within `timeout_s`."""
    if descriptor is None:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))


def kill(identity: Identity) -> None:
    """SIGKILL exactly this process; gone already is success."""
    kill_if(identity.pid, lambda _: identity.alive)


def terminate(identity: Identity) -> bool:
    """SIGTERM exactly this process; whether it was there."""
    with watched(identity.pid) as descriptor:
        there = descriptor is not None and identity.alive
        if descriptor is not None and there:
            _signal(descriptor, signal.SIGTERM)
    return there


def living(belongs: Callable[[int], bool]) -> list[int]:
    """Pids of the living processes that `belongs` says yes to."""
    return [pid for pid in _pids() if belongs(pid) and _started(pid) is not None]


def kill_if(pid: int, belongs: Callable[[int], bool]) -> None:
    """SIGKILL `pid` unless the number has passed to a process that does not belong."""
    with watched(pid) as descriptor:
        if descriptor is not None and belongs(pid):
            _signal(descriptor, signal.SIGKILL)


def link(pid: int, name: str) -> str:
    """Where /proc/PID/`name` points; empty when it is gone or not ours to read."""
    try:
        return str((PROC / str(pid) / name).readlink())
    except OSError:
        return ""


def environment(pid: int) -> list[str]:
    """NAME=value of a process of ours; empty when it is gone or not ours to read."""
    try:
        return os.fsdecode((PROC / str(pid) / "environ").read_bytes()).split("\0")
    except OSError:
        return []


def _pids() -> list[int]:
    return [int(each.name) for each in PROC.iterdir() if each.name.isdigit()]


def _is_first_in(namespace: str, pid: int) -> bool:
    if link(pid, "ns/pid") != namespace:
        return False
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return False
    told = next((line.split() for line in lines if line.startswith("NSpid:")), [])
    return told[-1:] == ["1"]


def _signal(descriptor: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def _started(pid: int) -> int | None:
    """Start time of a living process in ticks since boot; None when dead or a zombie."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if _after_name(stat)[0] in "ZX" else _start_of(stat)


def _start_of(stat: str) -> int:
    return int(_after_name(stat)[19])  # field 22 of proc(5), the third being the first here


def _after_name(stat: str) -> list[str]:
    """The fields after the name, which may itself hold spaces and brackets."""
    return stat.rsplit(")", 1)[1].split()
