"""Is a file still being written? Asked of the kernel, so that a writer that pauses is seen too."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Iterable, Optional, Set, Tuple

from remote.agent.procs import PROC, pids

FREE, BUSY, UNKNOWN = "free", "busy", "unknown"


def state_of(paths: Iterable[Path]) -> str:
    """`busy` when any of the files is open for writing anywhere on this machine, `free` when none
    is, `unknown` when the kernel would not say. The process must ignore SIGIO: a lease that is
    broken while we hold it sends one."""
    undecided: Set[Tuple[int, int]] = set()
    for path in paths:
        state = _by_lease(path)
        if state == BUSY:
            return BUSY
        if state == UNKNOWN:
            with contextlib.suppress(OSError):
                found = path.lstat()
                undecided.add((found.st_dev, found.st_ino))
    return _by_descriptors(undecided) if undecided else FREE


def _by_lease(path: Path) -> str:
    """A read lease is refused (EAGAIN) while the inode is open for writing; this sees through
    hard links and process namespaces. Some file systems and strangers' files know no leases."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return UNKNOWN
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return FREE
    except OSError as error:
        return BUSY if error.errno == errno.EAGAIN else UNKNOWN
    finally:
        os.close(file)


def _by_descriptors(files: Set[Tuple[int, int]]) -> str:
    """Look at what every process holds open. One that may not be looked at leaves it unknown."""
    state = FREE
    for pid in pids():
        found = _holds(PROC / str(pid), files)
        if found:
            return BUSY
        if found is None:
            state = UNKNOWN
    return state


def _holds(process: Path, files: Set[Tuple[int, int]]) -> Optional[bool]:
    try:
        numbers = os.listdir(process / "fd")
    except FileNotFoundError:
        return False
    except OSError as error:
        return False if error.errno == errno.ESRCH else None
    return any(_writes(process, number, files) for number in numbers)


def _writes(process: Path, number: str, files: Set[Tuple[int, int]]) -> bool:
    try:
        found = (process / "fd" / number).stat()
        if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) not in files:
            return False
        lines = (process / "fdinfo" / number).read_text().splitlines()
    except OSError:
        return False
    flags = next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), 0)
    return flags & os.O_ACCMODE != os.O_RDONLY
