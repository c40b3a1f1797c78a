"""gpujob as a person uses it, in a folder of its own: commands, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "e2e" / "programs"


class Place:
    """A state folder, a work folder, and the processes that belong to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "GPUJOB_HOME": str(self.state),
            "TMPDIR": str(folder / "tmp"),
            "LANG": "C.UTF-8",
        }
        for name in ("home", "tmp", "state", "code"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def job(self, command: str = "", **keys: Any) -> Path:
        """A job file that runs `tests/e2e/programs/trainer.py` with the words of `command`."""
        code = self.folder / "code"
        for program in PROGRAMS.glob("*.py"):
            (code / program.name).write_bytes(program.read_bytes())
        job: dict[str, Any] = {
            "name": "demo",
            "code": {"path": "code"},
            "run": f"python3 trainer.py {command} {{resume}}",
            "checkpoints": {
                "path": "out",
                "resume": {"args": "--resume {checkpoint}"},
                "mirror": str(self.folder / "mirror"),
            },
            **keys,
        }
        path = self.folder / "job.yaml"
        path.write_text(json.dumps(job))
        return path

    def run(
        self, *words: str, check: int | None = 0, timeout_s: float = 120, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words],
            env={**self.env, **env},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check is not None:
            assert done.returncode == check, (
                f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def launch(self, job: Path, *words: str, **env: str) -> str:
        said = self.run("launch", str(job), "--yes", "--detach", *words, **env).stdout
        return said.split("launched ")[1].split()[0]

    def events(self, run: str) -> list[dict[str, Any]]:
        lines = self.run("events", run, "--json").stdout.splitlines()
        return [json.loads(line) for line in lines]

    def kinds(self, run: str) -> list[str]:
        """Read from the ledger's file: to wait by starting a command line ten times a second
        would take a core away from what is waited for."""
        ledger = self.state / "ledger.db"
        if not ledger.exists():
            return []
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10)) as rows:
            found = rows.execute("select kind from events where run = ? order by seq", (run,))
            return [kind for (kind,) in found]

    def record(self, run: str) -> dict[str, Any]:
        lines = self.run("ps", "--json").stdout.splitlines()
        return next(each for each in map(json.loads, lines) if each["run"] == run)

    def wait_for(self, run: str, kind: str, count: int = 1, timeout_s: float = 60) -> None:
        wait_until(lambda: self.kinds(run).count(kind) >= count, timeout_s, f"{count} {kind}")

    def wait_end(self, run: str, timeout_s: float = 120) -> dict[str, Any]:
        wait_until(lambda: "run.finished" in self.kinds(run), timeout_s, f"the end of {run}")
        return self.record(run)

    def daemon_pid(self) -> int | None:
        try:
            return int(json.loads((self.state / "daemon.lock").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return None

    def kill_daemon(self) -> None:
        pid = self.daemon_pid()
        if pid is None:
            return  # on a slow machine it may have done its work and left
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}/environ").exists() or _zombie(pid), 10, "death")

    def box_pids(self) -> list[int]:
        found = []
        for path in sorted((self.state / "local").glob("*/identity")):
            words = path.read_text().split()
            found.append(int(words[1]))
        return found

    def kill_box(self) -> None:
        for pid in self.box_pids():
            os.kill(pid, signal.SIGKILL)

    def published(self) -> dict[str, str]:
        """Folder to digest of what the mirror holds."""
        manifests = (self.folder / "mirror" / ".gpujob" / "manifests").glob("*.json")
        return {path.stem: json.loads(path.read_text())["digest"] for path in manifests}

    def processes(self) -> list[str]:
        """Whatever still lives of this place: by the state folder it was told of."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                text = _read(entry / "cmdline") + _read(entry / "environ")
                if str(self.state) in text:
                    found.append(f"{entry.name} {_read(entry / 'cmdline')[:120]}")
        return found

    def close(self) -> None:
        """End everything that a test left, by pid."""
        pid = self.daemon_pid()
        for each in [*([pid] if pid else []), *self.box_pids()]:
            if _belongs(each, self.state):
                os.kill(each, signal.SIGKILL)
        wait_until(lambda: not self.processes(), 10, "the end of all processes")


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Real processes take real time: look every 0.1 s, at most until the deadline."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.1)


def _belongs(pid: int, state: Path) -> bool:
    entry = Path(f"/proc/{pid}")
    return str(state) in _read(entry / "cmdline") + _read(entry / "environ")


def _zombie(pid: int) -> bool:
    return " Z " in _read(Path(f"/proc/{pid}/stat"))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""
