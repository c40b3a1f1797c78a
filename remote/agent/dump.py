"""What a trainer that hangs was doing, taken down before anything is ended: the stacks of its
processes (py-spy where the box has it, else what /proc tells), what NCCL was told, and what its
flight recorder wrote."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
import threading
import time
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from remote.agent.attempt import Attempt
from remote.agent.durable import utc_now
from remote.agent.paths import Root
from remote.agent.procs import PROC, Process, descendants
from remote.agent.sights import Sights
from remote.agent.trainer import read_secrets

MOST_PROCESSES = 64
MOST_THREADS = 64
SPY_TIMEOUT_S = 10.0
DEADLINE_S = 25.0  # with all that may follow it, less than the minute that we are waited for
MOST_S, LEAST_S = SPY_TIMEOUT_S + 2.0, 0.2  # for one process
LEAST_SECRET = 4  # a shorter value stands in too many places by chance
MOST_TEXT = 256 * 1024
MOST_FILE = 1024 * 1024
MOST_FILES = 8
# Of the environment what ranks meet by, and nothing else: there are secrets in it.
_NAMES = "NCCL_ TORCH_NCCL_ TORCH_DISTRIBUTED_DEBUG= MASTER_ RANK= LOCAL_RANK= WORLD_SIZE="
TELLING = tuple(each.encode() for each in (*_NAMES.split(), "CUDA_VISIBLE_DEVICES="))
FLIGHT_FILE = b"TORCH_NCCL_DEBUG_INFO_TEMP_FILE="
USUAL_FLIGHT_FILE = "/tmp/nccl_trace_rank_"


def dump(root: Root, number: int) -> Dict[str, Any]:
    """Take everything down and tell it as sights. A trainer that has ended is success."""
    attempt, sights = Attempt(root, number), Sights(root.sights)
    processes = _processes(attempt)
    if not processes:
        return {"processes": 0, "how": "nothing runs", "files": []}
    hidden, until = _secrets(root), time.monotonic() + DEADLINE_S
    spy = _spy(processes)
    text = "\n".join(_describe_in_time(each, spy, until) for each in processes)[:MOST_TEXT]
    head = "attempt %d at %s: %d processes\n\n" % (number, utc_now(), len(processes))
    files = [("stacks.txt", (head + text).encode("utf-8", "replace")), *_flight(processes)]
    told = [n for n, data in files if _tell(sights, number, n, _without(data, hidden))]
    return {"processes": len(processes), "how": "py-spy" if spy else "/proc", "files": told}


def _secrets(root: Root) -> List[bytes]:
    """Their values: a program may have been given one in its command line."""
    try:
        values = read_secrets(root).values()
    except (OSError, ValueError):
        return []
    found = {os.fsencode(each) for each in values if len(each) >= LEAST_SECRET}
    return sorted(found, key=len, reverse=True)


def _without(data: bytes, hidden: List[bytes]) -> bytes:
    for value in hidden:
        data = data.replace(value, b"*" * len(value))
    return data


def _tell(sights: Sights, number: int, name: str, data: bytes) -> bool:
    packed = base64.b64encode(zlib.compress(data)).decode()
    return sights.tell("dump", number, dear=True, name=name, data=packed)


def _processes(attempt: Attempt) -> List[Process]:
    wrapper, trainer = attempt.wrapper, attempt.trainer
    below = descendants([each for each in (wrapper, trainer) if each])
    mine = [trainer] if trainer and trainer.alive else []
    return list(dict.fromkeys([*mine, *below]))[:MOST_PROCESSES]


def _spy(processes: List[Process]) -> Optional[str]:
    """py-spy on the agent's path, or beside the Python that trains."""
    found = shutil.which("py-spy")
    for each in processes:
        for folder in _program_folders(each):
            found = found or shutil.which("py-spy", path=folder)
    return found


def _program_folders(process: Process) -> Iterator[str]:
    """Of the program as it was called: a virtual environment's Python is a link elsewhere."""
    try:
        called = (PROC / str(process.pid) / "cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return
    if b"/" in called:
        yield os.path.dirname(os.fsdecode(called))


def _describe_in_time(process: Process, spy: Optional[str], until: float) -> str:
    """What can be said of a process until then. /proc itself may keep whoever reads it waiting for
    a process that waits for a disk."""
    said: List[str] = []
    reader = threading.Thread(
        target=lambda: said.append(_describe(process, spy, until)), daemon=True
    )
    reader.start()
    left_s = until + SPY_TIMEOUT_S - time.monotonic()
    reader.join(min(MOST_S, max(LEAST_S, left_s)))
    return said[0] if said else "== %d does not let itself be looked at\n" % process.pid


def _describe(process: Process, spy: Optional[str], until: float) -> str:
    lines = ["== %d %s" % (process.pid, _command(process))]
    lines += ["  " + each for each in _environment(process)]
    lines += _threads(process)
    stacks = _stacks(process, spy) if spy and time.monotonic() < until else ""
    return "\n".join([*lines, stacks, ""])


def _command(process: Process) -> str:
    data = _read(PROC / str(process.pid) / "cmdline")[:500]
    return data.replace(b"\0", b" ").decode("utf-8", "replace").strip()


def _environment(process: Process) -> List[str]:
    pairs = _read(PROC / str(process.pid) / "environ").split(b"\0")
    told = [each for each in pairs if each.startswith(TELLING)]
    return [each.decode("utf-8", "replace") for each in sorted(told)]


def _threads(process: Process) -> List[str]:
    """Each thread's state and where in the kernel it waits; its stack there when we may see it."""
    lines = []
    for folder in sorted((PROC / str(process.pid) / "task").glob("*"))[:MOST_THREADS]:
        status = _read(folder / "stat").rpartition(b")")[2].split()
        state = status[0].decode() if status else "?"
        name = _read(folder / "comm").decode("utf-8", "replace").strip()
        waits = _read(folder / "wchan").decode("utf-8", "replace") or "?"
        lines.append("  thread %s %s: %s, in %s" % (folder.name, name, state, waits))
        stack = _read(folder / "stack").decode("utf-8", "replace").splitlines()
        lines += ["    " + each for each in stack]
    return lines


def _stacks(process: Process, spy: str) -> str:
    """Never waits for longer, not even for the end of a py-spy that cannot be ended."""
    words = [spy, "dump", "--pid", str(process.pid)]
    where: Dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    try:
        asked = subprocess.Popen(words, stderr=subprocess.STDOUT, **where)
    except OSError as error:
        return "  py-spy: %s" % error
    try:
        said = asked.communicate(timeout=SPY_TIMEOUT_S)[0]
    except subprocess.TimeoutExpired as error:
        asked.kill()
        return "  py-spy: %s" % error
    return bytes(said).decode("utf-8", "replace")


def _flight(processes: List[Process]) -> Iterator[Tuple[str, bytes]]:
    """What NCCL's flight recorder wrote, a file a rank."""
    prefixes = {USUAL_FLIGHT_FILE}
    for each in processes:
        pairs = _read(PROC / str(each.pid) / "environ").split(b"\0")
        prefixes |= {os.fsdecode(p[len(FLIGHT_FILE) :]) for p in pairs if p.startswith(FLIGHT_FILE)}
    paths = [path for prefix in sorted(prefixes) for path in _starting_with(Path(prefix))]
    for number, path in enumerate(paths[:MOST_FILES]):
        yield "flight-%d.bin" % number, _read(path, MOST_FILE)


def _starting_with(prefix: Path) -> List[Path]:
    try:
        found = sorted(
            path for path in prefix.parent.iterdir() if path.name.startswith(prefix.name)
        )
    except OSError:
        return []
    return [path for path in found if _is_mine(path)]


def _is_mine(path: Path) -> bool:
    """A file of ours: anybody may have put something of that name there."""
    try:
        about = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(about.st_mode) and about.st_uid == os.getuid()


def _read(path: Path, most: int = 64 * 1024) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return b""
