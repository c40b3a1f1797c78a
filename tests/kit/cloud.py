"""An emulated cloud as a test holds it: started, misled, looked behind, and ended for certain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]
START_S = 30.0
END_S = 20.0
VARIABLES = {
    "runpod": ("RUNPOD_API_URL", "RUNPOD_API_KEY"),
    "thunder": ("TNR_API_URL", "TNR_API_TOKEN"),
}


class Cloud:
    """One emulator process. `start` takes the options of `python -m clouds KIND` by name."""

    def __init__(self, kind: str, folder: Path, process: subprocess.Popen[str]) -> None:
        self.kind = kind
        self.folder = folder
        self._process = process
        told = self._first_line()
        self.url, self.key = str(told["url"]), str(told["key"])
        self._control = httpx.Client(base_url=f"{self.url}/_control", timeout=30.0)

    @classmethod
    def start(cls, folder: Path, kind: str, **options: Any) -> Cloud:
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "clouds", kind, "--folder", str(folder), "--until-eof"]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        with (folder / "cloud.log").open("wb") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=cls.python_env(),
            )
        return cls(kind, folder, process)

    @staticmethod
    def python_env() -> dict[str, str]:
        """What `python -m clouds` needs in its environment."""
        return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}

    def env(self) -> dict[str, str]:
        """What a client of this cloud needs in its environment."""
        url, key = VARIABLES[self.kind]
        return {url: self.url, key: self.key}

    def fault(self, name: str, **params: Any) -> dict[str, Any]:
        return self._asked("POST", "faults", {"name": name, **params})

    def faults(self) -> dict[str, Any]:
        """The table of faults, and which are armed."""
        return self._asked("GET", "faults")

    def disarm(self, name: str | None = None) -> None:
        self._asked("DELETE", f"faults/{name}" if name else "faults")

    def instances(self) -> list[dict[str, Any]]:
        return list(self._asked("GET", "instances")["instances"])

    def bill(self) -> dict[str, Any]:
        return self._asked("GET", "bill")

    def audit(self) -> list[dict[str, Any]]:
        return list(self._asked("GET", "audit")["requests"])

    def violations(self) -> list[dict[str, str]]:
        return list(self._asked("GET", "violations")["violations"])

    def advance(self, seconds: float) -> None:
        self._asked("POST", "clock", {"advance_s": seconds})

    def balance(self, usd: float) -> None:
        self._asked("POST", "balance", {"usd": usd})

    def end(self, instance: str) -> None:
        """End an instance as a person does in the console."""
        self._asked("DELETE", f"instances/{instance}")

    def close(self) -> None:
        """End the emulator; fails when it left a process of a box behind, after killing it."""
        self._control.close()
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        left = self.processes()
        for each in left:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                each.kill()
        assert not left, f"{self.kind} left processes behind: {left}"

    def processes(self) -> list[psutil.Process]:
        """Whatever lives of its boxes: by their folder in a command line or an environment."""
        return [each for each in psutil.process_iter() if _mentions(each, str(self.folder))]

    def _first_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(START_S)
            raise RuntimeError(f"{self.kind}: {(self.folder / 'cloud.log').read_text()}")
        return dict(json.loads(line))

    def _asked(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        reply = self._control.request(method, path, json=body)
        assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text}"
        return dict(reply.json())


def _mentions(process: psutil.Process, folder: str) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        boxes = f"{folder}/boxes/"
        words = " ".join(process.cmdline())
        return boxes in words or any(boxes in value for value in process.environ().values())
    return False
