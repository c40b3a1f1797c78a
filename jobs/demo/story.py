"""The whole story on this machine, for $0: rent, upload, train, kill the box halfway, resume on a
new one, mirror, pull, tear down. It types the commands that a person would type."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".demo"
JOB = ROOT / "jobs" / "demo.yaml"
WITNESS = PLACE / "witness.jsonl"
GPUJOB = [sys.executable, "-m", "orchestrator.cli"]
KILL_AFTER = 3
DEADLINE_S = 240.0
# Thunder Compute, one H100; read on 2026-08-08 from its public price page. Prices drift.
GPU, USD_PER_HOUR = "H100", 2.19

_tick = threading.Event()


def main() -> int:
    _fresh_place()
    make_inputs()
    say("launch jobs/demo.yaml --yes --detach")
    witness = f"env.TRAINER_WITNESS={WITNESS}"
    said = gpujob("launch", str(JOB), "--yes", "--detach", "--set", witness)
    print(said, end="")
    run = said.split("launched ")[1].split()[0]
    try:
        return tell(run)
    except BaseException:
        # Whatever went wrong: the demo leaves nothing running.
        gpujob("teardown", run, check=False)
        raise


def tell(run: str) -> int:
    """Train, kill the box, watch it recover, pull, tear down, and say what happened."""
    wait_for_checkpoints(run, KILL_AFTER)
    killed_step, killed_at = kill_the_box(run), time.time()
    say(f"watch {run}")
    gpujob("watch", run, show=True)
    say("pull checkpoint-30 --to .demo/pulled")
    print(gpujob("pull", f"{run}:checkpoint-30", "--to", str(PLACE / "pulled")), end="")
    say(f"teardown {run}")
    print(gpujob("teardown", run), end="")
    return conclude(run, killed_step, killed_at)


def make_inputs() -> None:
    """Chat examples from the standard library's own documentation, and a tiny model for them."""
    data = PLACE / "data"
    texts = str(PLACE / "text.txt")
    python("jobs/demo/make_data.py", "--out", str(data / "chat.parquet"), "--texts", texts)
    python("-m", "remote.trainer.tiny", "--out", str(PLACE / "model"), "--texts", texts)


def wait_for_checkpoints(run: str, count: int) -> None:
    waited_s = 0.0
    while len(here(run)) < count:
        if waited_s > DEADLINE_S:
            raise SystemExit(f"no {count} checkpoints after {DEADLINE_S:.0f} s; see gpujob logs")
        _tick.wait(0.5)
        waited_s += 0.5


def kill_the_box(run: str) -> int:
    """SIGKILL to the process that all of the box lives under; the step it had reached."""
    identity = next((PLACE / "state" / "local").glob("*/identity"))
    pid = int(identity.read_text().splitlines()[1].split()[0])
    step = last_step(run)
    print(f"\n*** killing the box without warning at step {step} (kill -9 {pid}) ***", flush=True)
    os.kill(pid, signal.SIGKILL)
    return step


def conclude(run: str, killed_step: int, killed_at: float) -> int:
    events = [json.loads(line) for line in gpujob("events", run, "--json").splitlines()]
    resumed = [each["data"]["resume"] for each in events if each["kind"] == "attempt.intended"]
    step = resumed[-1]["step"] if resumed[-1] else 0
    losses = all_losses(run)
    first, last = mean(losses[:5]), mean(losses[-5:])
    began, ended = (datetime.fromisoformat(events[at]["at"]) for at in (0, -1))
    hours = (ended - began).total_seconds() / 3600
    names = sorted({each["name"] for each in here(run)})
    print(
        f"\nThe story in short"
        f"\n  attempts       {len(resumed)}; the second resumed from step {step}"
        f"\n  lost           the box, and {killed_step - step} steps that were trained again"
        f"\n  checkpoints    {len(names)} here, verified, although the trainer kept 2"
        f"\n  loss           {first:.3f} -> {last:.3f}"
        f"\n  took           {hours * 3600:.0f} s; on one {GPU} at ${USD_PER_HOUR}/h that is "
        f"${hours * USD_PER_HOUR:.4f}"
    )
    problems = [
        *([] if len(names) >= 6 else [f"only {len(names)} checkpoints are here"]),
        *([] if last < first else ["the loss did not fall"]),
        *([] if len(resumed) == 2 and step > 0 else ["it did not resume"]),
        *compare_with_the_witness(step, killed_at),
        *left_behind(),
    ]
    for problem in problems:
        print(f"  PROBLEM        {problem}")
    return 1 if problems else 0


def compare_with_the_witness(resumed_step: int, killed_at: float) -> list[str]:
    """What the trainer itself recorded of its files, against the bytes that are here."""
    problems = []
    lines = [json.loads(line) for line in WITNESS.read_text().splitlines()]
    for name, record in {each["name"]: each for each in lines}.items():
        for path, digest in record["files"].items():
            file = PLACE / "checkpoints" / name / path
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                problems.append(f"{name}/{path} is not what the trainer wrote")
    safe = [each["name"] for each in lines if each["complete_at"] <= killed_at - 3]
    due = max((int(name.rpartition("-")[2]) for name in safe if "-" in name), default=0)
    if resumed_step < due:
        problems.append(f"checkpoint-{due} was complete 3 s before the kill and was not used")
    return problems


def left_behind() -> list[str]:
    """Processes of the demo that still live; the daemon has a moment to see that nothing is
    left to do."""
    for _ in range(40):
        if not living():
            return []
        _tick.wait(0.25)
    return living()


def living() -> list[str]:
    """By the folder that they were told of."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            environ = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"GPUJOB_HOME={PLACE}" in environ or str(PLACE / "state") in words:
            found.append(f"process {entry.name} is left: {words.replace(chr(0), ' ')[:80]}")
    return found


def here(run: str) -> list[dict[str, Any]]:
    lines = gpujob("checkpoints", run, "--json").splitlines()
    return [each for line in lines if (each := json.loads(line))["here"]]


def last_step(run: str) -> int:
    return max((each["step"] for each in metrics(run)), default=0)


def all_losses(run: str) -> list[float]:
    """Loss by step; a step that was trained again counts as it was the last time."""
    by_step = {each["step"]: each["loss"] for each in metrics(run) if "loss" in each}
    return [by_step[step] for step in sorted(by_step)]


def metrics(run: str) -> list[dict[str, Any]]:
    files = sorted((PLACE / "state" / "runs" / run).glob("*/metrics.jsonl"))
    lines = [line for file in files for line in file.read_text().split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def say(words: str) -> None:
    print(f"\n$ gpujob {words}", flush=True)


def gpujob(*words: str, show: bool = False, check: bool = True) -> str:
    done = subprocess.run(
        [*GPUJOB, *words], env=environment(), cwd=ROOT, text=True, check=False,
        stdout=None if show else subprocess.PIPE,
    )  # fmt: skip
    if check and done.returncode != 0:
        raise SystemExit(f"gpujob {' '.join(words)} ended with {done.returncode}")
    return done.stdout or ""


def python(*words: str) -> None:
    subprocess.run([sys.executable, *words], env=environment(), cwd=ROOT, check=True)


def environment() -> dict[str, str]:
    """Everything of the demo stays in its folder: state, temporary files, caches."""
    return {**os.environ, "GPUJOB_HOME": str(PLACE / "state"), "TMPDIR": str(PLACE / "tmp")}


def _fresh_place() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    (PLACE / "tmp").mkdir(parents=True)


if __name__ == "__main__":
    sys.exit(main())
