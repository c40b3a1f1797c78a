"""A box without a network: the real agent from its archive, a home folder, tmux."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipapp
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import remote
from remote.contract import Fact, Manifest, read_frame, skip_to_magic, write_frame

PYTHON = "/usr/bin/python3"
WRITER = Path(__file__).with_name("writer.py")
RUN = "demo-abc123"
T = TypeVar("T")


def build_agent(target: Path) -> Path:
    """The archive as the controller makes it: `remote` without the trainer."""
    source, tree = Path(next(iter(remote.__path__))), target.with_suffix(".tree")
    (tree / "remote").mkdir(parents=True)
    for path in source.glob("*.py"):
        shutil.copy(path, tree / "remote")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "agent", tree / "remote/agent", ignore=ignore)
    zipapp.create_archive(tree, target, main="remote.agent.__main__:main")
    return target


class AgentBox:
    """`home` is the box's; everything that it starts is ended by `close`."""

    def __init__(self, home: Path, archive: Path, python: str = PYTHON) -> None:
        self.home = home
        self.root = home / ".gpujob" / RUN
        self.work = home / "gpujob" / RUN
        self.out = self.work / "out"
        self.record = home / "record.jsonl"
        self.python = python
        for folder in (self.root, self.work):
            folder.mkdir(parents=True)
        shutil.copy(archive, self.root / "agent.pyz")

    def run(self, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [*self._command(*words)]
        environment = self.environment(path)
        return subprocess.run(
            command, cwd=self.home, env=environment, capture_output=True, text=True, timeout=60
        )

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command(*words),
            cwd=self.home,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def environment(self, path: str | None = None) -> dict[str, str]:
        """As a session finds it; the login shell of a service account lets nobody in."""
        shell = {"LANG": "C.UTF-8", "SHELL": "/usr/sbin/nologin"}
        return {"HOME": str(self.home), "PATH": path or "/usr/bin:/bin", **shell}

    def spec(self, attempt: int, command: str, /, **changes: Any) -> None:
        folder = self.root / "attempts" / str(attempt)
        folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "v": 1,
            "instance": "i1",
            "attempt": attempt,
            "workdir": f"gpujob/{RUN}",
            "command": command,
            "env": {"GPUJOB_CHECKPOINT_DIR": "out"},
            "secrets": False,
            "path": None,
            "checkpoints": "out",
            "layout": "huggingface",
            "world_size": 1,
            "resume_step": None,
        }
        (folder / "spec.json").write_text(json.dumps({**spec, **changes}))

    def writer(self, *words: str) -> str:
        """The shell text that runs the writer of checkpoints."""
        return " ".join(["exec", PYTHON, str(WRITER), "--record", str(self.record), *words])

    def start(self, attempt: int = 1) -> dict[str, Any]:
        done = self.run("start", "--instance", "i1", "--attempt", str(attempt))
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def stop(self, attempt: int = 1, name: str = "TERM") -> dict[str, Any]:
        done = self.run("stop", "--attempt", str(attempt), "--signal", name)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def facts(self, kind: str | None = None) -> list[Fact]:
        path = self.root / "events.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        told = [Fact.decode(line) for line in lines if line.endswith(b"\n")]
        return [fact for fact in told if kind in (None, fact.kind)]

    def await_fact(self, kind: str, count: int = 1, timeout_s: float = 30) -> list[Fact]:
        def look() -> list[Fact]:
            found = self.facts(kind)
            return found if len(found) >= count else []

        return wait_for(look, f"{count} {kind}", timeout_s, self._story)

    def agent_pid(self) -> int:
        return int(json.loads((self.root / "agent.json").read_text())["pid"])

    def seal(self, name: str, generation: int = 1) -> tuple[Manifest, Path]:
        folder = self.root / "seals" / f"{name}.{generation}"
        return Manifest.decode((folder / "manifest.json").read_bytes()), folder / "tree"

    def recorded(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]

    @contextmanager
    def serving(self) -> Iterator[Link]:
        process = self.popen("serve")
        try:
            yield Link(process)
        finally:
            assert process.stdin and process.stdout
            process.stdin.close()
            process.stdout.close()
            process.wait(10)

    def close(self) -> None:
        """End what runs here, by pid, and say what should not have been left."""
        for _ in range(50):
            left = self.processes()
            if not left:
                return
            for pid in left:
                _kill(pid)
            time.sleep(0.05)
        raise AssertionError(f"these do not end: {left}")

    def processes(self) -> list[int]:
        """Whatever runs with this home folder."""
        mark = f"HOME={self.home}".encode()
        return [pid for pid in _pids() if mark in _environ(pid)]

    def _command(self, *words: str) -> list[str]:
        archive = f".gpujob/{RUN}/agent.pyz"
        return [self.python, "-I", "-S", archive, *words, "--root", f".gpujob/{RUN}"]

    def _story(self) -> str:
        told = "\n".join(f"{fact.kind} {fact.data}" for fact in self.facts())
        names = ("agent.log", "log")
        files = [self.root / name for name in names if (self.root / name).exists()]
        return told + "".join(f"\n--- {path.name}\n{path.read_text()}" for path in files)


class Link:
    """Frames to and from `serve`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout
        self.writer, self.reader = process.stdin, process.stdout
        skip_to_magic(self.reader)

    def ask(self, op: str, payload: bytes = b"", **header: Any) -> tuple[dict[str, Any], bytes]:
        write_frame(self.writer, {"op": op, **header}, payload)
        reply = read_frame(self.reader)
        assert reply is not None, "the agent ended the stream"
        return reply


def wait_for(
    look: Callable[[], T], what: str, timeout_s: float = 30, story: Callable[[], str] = str
) -> T:
    """The first true answer of `look`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}\n{story()}")


def runs(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return re.sub(r".*\)", "", text).split()[0] not in "ZX"


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
