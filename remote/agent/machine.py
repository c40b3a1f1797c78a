"""What a machine does while a trainer is silent: its GPUs, and the trainer's own processes.

Of processors and disks only what the trainer's processes use is counted: in a container /proc
shows what all tenants of the machine do."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Tuple

from remote.agent.procs import PROC, Process

QUERY = "index,utilization.gpu,memory.used,memory.total"
GPU_TIMEOUT_S = 10.0
MOST_GPUS = 64
MIB_PER_GB = 1024.0
CGROUPS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)
Counters = Dict[Process, Tuple[float, int, int]]


class Load:
    """Rates between two looks; None at the first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: Optional[float] = None
        self._before: Counters = {}

    def look(self, processes: Iterable[Process]) -> Dict[str, Optional[float]]:
        """Of all these processes together: `cpu_percent` of one core, `disk_bytes_per_s`, and
        `passed_bytes_per_s` through calls that read and write, to sockets too."""
        now, counters = self._clock(), _counters(processes)
        took = None if self._at is None else now - self._at
        gained = [_gained(counters, self._before, index) for index in (0, 1, 2)]
        self._at, self._before = now, counters
        if not took:
            return {"cpu_percent": None, "disk_bytes_per_s": None, "passed_bytes_per_s": None}
        return {
            "cpu_percent": round(100 * gained[0] / took, 1),
            "disk_bytes_per_s": round(gained[1] / took, 1),
            "passed_bytes_per_s": round(gained[2] / took, 1),
        }

    def forget(self) -> None:
        self._at, self._before = None, {}


def look_at_gpus() -> Optional[List[Dict[str, float]]]:
    """What nvidia-smi tells of each GPU; None where there is none, or it does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    words = [tool, "--query-gpu=" + QUERY, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GPU_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpus(done.stdout.decode("utf-8", "replace")) or None


def oom_kills() -> int:
    """How many processes the kernel has ended here for want of memory, so far; of this container
    alone. 0 where it does not say."""
    for path in CGROUPS:
        try:
            told = dict(line.split(" ", 1) for line in path.read_text().splitlines())
            return int(told["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def parse_gpus(text: str) -> List[Dict[str, float]]:
    """A line a GPU; one that does not tell a number (`[N/A]`) is left out."""
    found = []
    for line in text.splitlines()[:MOST_GPUS]:
        try:
            index, percent, used, total = (float(word) for word in line.split(","))
        except ValueError:
            continue
        used_gb, total_gb = used / MIB_PER_GB, total / MIB_PER_GB
        record = {"percent": percent, "used_gb": round(used_gb, 3), "total_gb": round(total_gb, 3)}
        found.append({"index": int(index), **record})
    return found


def _counters(processes: Iterable[Process]) -> Counters:
    return {each: (_cpu_s(each.pid), *_moved_bytes(each.pid)) for each in processes}


def _gained(now: Counters, before: Counters, index: int) -> float:
    """A process that ended meanwhile takes its counters with it; one that is new brings its own."""
    none = (0.0, 0, 0)
    return sum(max(0.0, told[index] - before.get(each, none)[index]) for each, told in now.items())


def _cpu_s(pid: int) -> float:
    try:
        words = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _moved_bytes(pid: int) -> Tuple[int, int]:
    """From and to disks; and through calls, where what is cached and what is sent counts."""
    try:
        lines = (PROC / str(pid) / "io").read_text().splitlines()
        told = {name: int(value) for name, value in (line.split(": ") for line in lines)}
        disk = told["read_bytes"] + told["write_bytes"]
        return disk, told["rchar"] + told["wchar"]
    except (OSError, ValueError, KeyError):
        return 0, 0
