"""Stands in for a pid namespace where the machine refuses one: owns sshd and all it starts.

Run as a program: `python supervisor.py FOLDER COMMAND…`. As subreaper it inherits every orphan,
and when it is told to end, or sshd ends, it kills them all. A SIGKILL gives it no chance: then
the marker in their environment finds them (`provider.terminate`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = _spawn(command)
    try:
        while True:
            pid, _ = os.wait()  # orphans are reaped here too
            if pid == server:
                return 1
    except ChildProcessError:
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_descendants()


def _spawn(command: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execv(command[0], command)
    return pid


def _end_descendants() -> None:
    """Kill until none is left: a child of the killed becomes ours, so this ends."""
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def _children() -> list[int]:
    me = os.getpid()
    return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
