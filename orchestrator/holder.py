"""Who acts: a process named so that it can never be taken for a later one with the same pid."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """Boot id, pid and start time in clock ticks (proc(5), field 22 of stat)."""

    boot: str
    pid: int
    started: int

    @staticmethod
    def current() -> Holder:
        pid = os.getpid()
        return Holder(_boot_id(), pid, start_ticks(pid) or 0)

    def lives(self) -> bool:
        return self.boot == _boot_id() and start_ticks(self.pid) == self.started

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> Holder:
        return Holder(**json.loads(text))


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
