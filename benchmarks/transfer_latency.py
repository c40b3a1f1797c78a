"""From complete on the box to verified here, through everything: a launched run on a local box, its
agent, its daemon, its mirror."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from transfer_trial import environment

LIMIT_S = 300.0


def latencies_s(folder: Path, *, saves: int, size_bytes: int, pause_s: float) -> list[float]:
    """One a save; `folder` is made, used and left to the caller to remove."""
    code, state, record = folder / "code", folder / "state", folder / "record.jsonl"
    for each in (code, state):
        each.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("transfer_trainer.py"), code)
    options = f"--saves {saves} --bytes {size_bytes} --pause {pause_s} --record {record}"
    job = folder / "job.yaml"
    job.write_text(json.dumps(_job(folder, options)))
    gpujob = _Gpujob(folder, state)
    run = gpujob("launch", str(job), "--yes", "--detach").split("launched ")[1].split()[0]
    try:
        events = _events_to_the_end(gpujob, run)
    finally:
        gpujob("teardown", run)
    complete = {each["step"]: each["complete_at"] for each in map(json.loads, _lines(record))}
    here = {
        int(event["data"]["name"].rpartition("-")[2]): _seconds(event["at"])
        for event in events
        if event["kind"] == "checkpoint.mirrored" and event["data"]["name"] != "final"
    }
    if missing := complete.keys() - here.keys():
        raise RuntimeError(f"these checkpoints are not here: {sorted(missing)}")
    return [here[step] - complete[step] for step in sorted(complete)]


class _Gpujob:
    """The command line, with a state folder of its own."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._env = {**environment(), "GPUJOB_HOME": str(state), "HOME": str(folder)}

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words],
            env=self._env,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        if done.returncode:
            raise RuntimeError(f"gpujob {words[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout


def _job(folder: Path, options: str) -> dict[str, Any]:
    return {
        "name": "bench",
        "code": {"path": "code"},
        "run": f"python3 transfer_trainer.py {options}",
        "checkpoints": {"path": "out", "mirror": str(folder / "mirror")},
    }


def _events_to_the_end(gpujob: _Gpujob, run: str) -> list[dict[str, Any]]:
    """Asked seldom: whoever looks takes a core from what is measured."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        events = [json.loads(line) for line in gpujob("events", run, "--json").splitlines()]
        if any(event["kind"] == "run.finished" for event in events):
            return events
        time.sleep(1)
    raise TimeoutError(f"{run} did not end within {LIMIT_S:.0f} s")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
