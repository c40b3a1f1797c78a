"""Through all of gpujob: 30 steps straight equal 15 and, after a SIGKILL of the trainer, the rest,
to the byte; and a trainer that ignores `{resume}` is found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("deepspeed")

import trainer_kit
from kit.gpujob import ROOT, Place, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.trainer]

START = "python3 -m remote.trainer.launch --ranks {gpus} train.json"
EXACT = (
    "adapter_model.safetensors",
    "rng_state_0.pth",
    "rng_state_1.pth",
    "scheduler.pt",
    "global_step30/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "global_step30/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "global_step30/mp_rank_00_model_states.pt",
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = trainer_kit.workshop(tmp_path_factory.mktemp("workshop"))
    # Many short examples a step make a step long enough to be killed in.
    trainer_kit.settings(
        folder,
        "train",
        stage=2,
        lora={"r": 4, "alpha": 8, "dropout": 0.2},
        args={"max_steps": 30, "save_steps": 15, "gradient_accumulation_steps": 4},
    )
    return folder


@pytest.fixture(scope="module")
def straight(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mirror of a run that nobody disturbed."""
    place = Place(tmp_path_factory.mktemp("straight"))
    try:
        run = place.launch(_job(place, workshop, f"{START} {{resume}}"))
        place.run("watch", run)
        assert _steps(place, run) == list(range(1, 31))
    finally:
        place.close()
    return place.folder / "mirror"


def test_a_killed_trainer_goes_on_to_the_same_bytes(
    place: Place, workshop: Path, straight: Path
) -> None:
    run = _run_and_kill(place, workshop, f"{START} {{resume}}")
    _check(place, run, straight)


@pytest.mark.long
def test_a_trainer_that_ignores_resume_is_found_out(
    place: Place, workshop: Path, straight: Path
) -> None:
    ignoring = f"env -u GPUJOB_RESUME_FROM {START} # {{resume}}"
    run = _run_and_kill(place, workshop, ignoring)
    with pytest.raises(AssertionError, match="the first step after the resume"):
        _check(place, run, straight)


def _run_and_kill(place: Place, workshop: Path, command: str) -> str:
    run = place.launch(_job(place, workshop, command))
    wait_until((place.folder / "mirror" / "checkpoint-15").is_dir, 90, "checkpoint-15")
    killed = _kill_trainer(run)
    assert killed >= 3, "the launcher and two ranks"
    place.run("watch", run)
    return run


def _check(place: Place, run: str, straight: Path) -> None:
    steps = _steps(place, run)
    again = next(at for at in range(1, len(steps)) if steps[at] <= steps[at - 1])
    assert steps[again] == 16, f"the first step after the resume is {steps[again]}"
    assert steps[again:] == list(range(16, 31))
    for name in EXACT:
        one, other = (folder / "checkpoint-30" / name for folder in (straight, _mirror(place)))
        assert one.read_bytes() == other.read_bytes(), name


def _job(place: Place, workshop: Path, command: str) -> Path:
    return place.job(
        resources={"gpu": "cpu:2"},
        data=[
            {"from": str(workshop / "tiny"), "to": "tiny/"},
            {"from": str(workshop / "chat.jsonl"), "to": "chat.jsonl"},
            {"from": str(workshop / "train.json"), "to": "train.json"},
        ],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        run=command,
    )


def _kill_trainer(run: str) -> int:
    """SIGKILL, by pid, to the launcher and every rank: killed, not ended."""
    killed = 0
    for process in psutil.process_iter():
        try:
            words, environ = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if environ.get("GPUJOB_RUN_ID") == run and any("remote.trainer" in each for each in words):
            process.kill()
            killed += 1
    return killed


def _steps(place: Place, run: str) -> list[int]:
    files = sorted((place.state / "runs" / run).glob("*/metrics.jsonl"))
    lines: list[dict[str, Any]] = [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]
    return [line["step"] for line in lines]


def _mirror(place: Place) -> Path:
    return place.folder / "mirror"
