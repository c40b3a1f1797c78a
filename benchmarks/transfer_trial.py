"""One measured transfer: how long it took, what it cost both sides, and whether it is all there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from transfer_box import Sealed, Served
from transfer_tools import Tool

LOOK_S = 0.25
LIMIT_S = 900.0


@dataclass(frozen=True)
class Trial:
    """`rss_bytes`: the most memory (PSS) that the client's processes had at once."""

    tool: str
    what: str
    link: str
    size_bytes: int
    seconds: float
    client_cpu_s: float
    server_cpu_s: float
    rss_bytes: int
    load: float

    @property
    def mb_s(self) -> float:
        return self.size_bytes / self.seconds / 1e6

    def per_gib(self, cpu_s: float) -> float:
        return cpu_s * 2**30 / self.size_bytes


def measure(
    tool: Tool, served: Served, sealed: Sealed, *, into: Path, link: str, enter: list[str]
) -> Trial:
    """Raises RuntimeError when the tool fails or brings other bytes."""
    load, server_s = os.getloadavg()[0], served.cpu_s()
    dest = into / "fetched"
    command = [*enter, *tool.command(served, sealed, dest)]
    try:
        seconds, cpu_s, rss, said = _run(command)
        if tool.tells:
            told = json.loads(said)
            seconds, cpu_s = told["seconds"], told["cpu_s"]
        _check(sealed.tree, dest / sealed.name if tool.is_ours else dest, tool.name)
        server_s = served.cpu_s() - server_s
    finally:
        shutil.rmtree(dest, ignore_errors=True)
    size = sealed.size_bytes
    return Trial(tool.name, sealed.what, link, size, seconds, cpu_s, server_s, rss, load)


def environment() -> dict[str, str]:
    """In which a Python finds this very checkout first."""
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": ":".join(path)}


def _run(command: list[str]) -> tuple[float, float, int, str]:
    """Seconds, CPU seconds of it and its children, peak memory, and what it printed."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment(),
    )
    memory = _Memory(process.pid)
    late = threading.Timer(LIMIT_S, os.killpg, (process.pid, signal.SIGKILL))
    late.start()
    try:
        assert process.stdout and process.stderr
        with process.stdout as output, process.stderr as errors:
            said, blamed = output.read().decode(), errors.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        late.cancel()
        memory.end()
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}: {said}{blamed}")
    return seconds, used.ru_utime + used.ru_stime, memory.peak_bytes, said


class _Memory:
    """Looks now and then at what a process and its descendants use."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            self.peak_bytes = max(self.peak_bytes, _tree_bytes(self._pid))


def _tree_bytes(pid: int) -> int:
    """Proportional set size: what several processes share counts once."""
    process = Path(f"/proc/{pid}")
    try:
        rollup = (process / "smaps_rollup").read_text()
        children = [
            int(child)
            for task in (process / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return 0
    lines = [line.split() for line in rollup.splitlines() if line.startswith("Pss:")]
    return sum(int(line[1]) * 1024 for line in lines) + sum(map(_tree_bytes, children))


def _check(tree: Path, dest: Path, tool: str) -> None:
    for path in (path for path in tree.rglob("*") if path.is_file()):
        fetched = dest / path.relative_to(tree)
        if not fetched.is_file() or _digest(fetched) != _digest(path):
            raise RuntimeError(f"{tool} brought {fetched} with other bytes than {path}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
