"""Job files of `jobs/` on this machine: what is set so that a rented file runs here, and what is
asked of the run afterwards. The stand-ins of `stand_in/` are the code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kit.gpujob import ROOT, Place, wait_until

JOBS = ROOT / "jobs"
STAND_IN = Path(__file__).parent / "stand_in"
# Launchers of the stand-in come before those of this environment, which would import torch.
PATH = f"bin:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
SECRETS = {"HF_TOKEN": "not-a-token", "WANDB_API_KEY": "not-a-key"}


def job(name: str) -> Path:
    return JOBS / f"{name}.yaml"


def here(place: Place, gpus: Iterable[str], *sets: str, **env: str) -> list[str]:
    """`--set` words that make a rented file run on this machine. `gpus` is what each phase gets in
    place of its GPUs, or the one machine of a job whose phases do not say."""
    several = list(gpus)
    keys = ["resources.gpu"] if len(several) == 1 else []
    keys += [f"phases.{index}.resources.gpu" for index in range(len(several)) if not keys]
    said = [
        "resources.providers=[local]",
        *(f"{key}=[{gpu}]" for key, gpu in zip(keys, several, strict=True)),
        "setup='echo set up'",
        f"checkpoints.mirror={place.folder / 'mirror'}",
        f"env.PATH='{PATH}'",
        *(f"env.{name}='{value}'" for name, value in env.items()),
        *sets,
    ]
    return [word for each in said for word in ("--set", each)]


def told(place: Place, run: str, kind: str) -> list[dict[str, Any]]:
    return [each["data"] for each in place.events(run) if each["kind"] == kind]


def attempts(place: Place, run: str) -> list[tuple[str, int | None]]:
    """The phase of each attempt, and the step that it resumed from."""
    return [
        (each["phase"], each["resume"]["step"] if each["resume"] else None)
        for each in told(place, run, "attempt.intended")
    ]


def verdicts(place: Place, run: str) -> list[tuple[str, str]]:
    return [(each["phase"], each["verdict"]) for each in told(place, run, "gate.judged")]


def published(place: Place, phase: str) -> set[str]:
    manifests = (place.folder / "mirror" / phase / ".gpujob" / "manifests").glob("*.json")
    return {path.stem for path in manifests}


def check_nothing_is_left(place: Place, run: str) -> None:
    assert place.record(run)["still_billing"] == []
    wait_until(lambda: place.processes() == [], 15, "no process to be left")


def repository(folder: Path, *, branch: str = "main") -> str:
    """A repository of the stand-ins at `folder`, as a checkout of `branch`; its commit."""
    shutil.copytree(STAND_IN, folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    _git(folder, "init", "-q", "-b", branch)
    _git(folder, "add", "-A")
    _git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "made")
    return _git(folder, "rev-parse", "HEAD")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
