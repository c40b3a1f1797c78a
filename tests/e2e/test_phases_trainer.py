"""Phases with our own trainer: a warm-up that is stopped by SIGTERM where it stands, the rest of
it on the same box, and another stage on two ranks that begins from the weights alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trainer_kit
from kit.gpujob import Place

pytestmark = [pytest.mark.e2e, pytest.mark.trainer, pytest.mark.long]

TRAIN: dict[str, Any] = {
    "method": "sft",
    "model": "tiny",
    "data": "chat.jsonl",
    "max_seq_length": 64,
    "full": True,
    "args": {
        "max_steps": 60,
        "save_steps": 25,
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "learning_rate": 0.01,
    },
}


def job(place: Place) -> Path:
    (place.folder / "code").mkdir(exist_ok=True)
    path = place.folder / "job.yaml"
    phases = [
        {
            "name": "warm",
            "stop_after_steps": 42,
            "gate": {"loss_drop": {"percent": 10, "within_steps": 42}, "no_red_flags": True},
        },
        {"name": "rest", "start_from": {"as": "resume"}},
        {
            "name": "wide",
            "resources": {"gpu": "cpu:2"},
            "start_from": {"phase": "rest", "checkpoint": "final", "as": "path"},
            "train": {"model": "{start}", "args": {"max_steps": 10}},
        },
    ]
    place.folder.joinpath("home").mkdir(exist_ok=True)
    path.write_text(
        json.dumps(
            {
                "name": "climb",
                "resources": {"gpu": "cpu:1"},
                "code": {"path": "code"},
                "data": [
                    {"from": "shop/tiny/", "to": "tiny/"},
                    {"from": "shop/chat.jsonl", "to": "chat.jsonl"},
                ],
                "env": {"OMP_NUM_THREADS": "1"},
                "train": TRAIN,
                "checkpoints": {"path": "out", "mirror": str(place.folder / "mirror")},
                "phases": phases,
            }
        )
    )
    return path


def test_a_warm_up_the_rest_and_a_wider_stage(place: Place) -> None:
    (place.folder / "shop").mkdir()
    trainer_kit.workshop(place.folder / "shop")
    run = place.launch(job(place))
    done = place.run("watch", run, timeout_s=400)
    assert "trained to the end" in done.stdout
    events = place.events(run)
    told = {kind: [e["data"] for e in events if e["kind"] == kind] for kind in place.kinds(run)}
    warm, rest, wide = told["attempt.intended"]
    assert warm["instance"] == rest["instance"] != wide["instance"]
    begun = told["phase.begun"]
    start = begun[1]["start"]
    assert 42 <= start["step"] < 60, "it saved where it was stopped, and not at its next save"
    assert rest["resume"] == start and wide["resume"] is None
    assert begun[2]["start"]["name"] == "final"
    assert [each["verdict"] for each in told["gate.judged"]] == ["GO"]
    finals = place.folder / "mirror"
    for name, last in (("rest", 60), ("wide", 10)):
        state = json.loads((finals / name / "final" / "trainer_state.json").read_text())
        assert state["global_step"] == last
    steps = _steps(place, run, rest)
    assert steps[: len(range(start["step"] + 1, 61))] == list(range(start["step"] + 1, 61))
    assert _loss(place, run, wide, 1) < _loss(place, run, warm, 1), "it began from scratch"


def test_a_phase_goes_on_with_more_ranks(place: Place) -> None:
    """The shards of one rank become those of two on the way in, and the steps go on."""
    (place.folder / "shop").mkdir()
    trainer_kit.workshop(place.folder / "shop")
    path = job(place)
    record = json.loads(path.read_text())
    args = {**TRAIN["args"], "max_steps": 30, "save_steps": 10}
    record["train"] = {**TRAIN, "deepspeed": {"zero_optimization": {"stage": 2}}, "args": args}
    record["phases"] = [
        {"name": "one", "stop_after_steps": 12},
        {"name": "two", "resources": {"gpu": "cpu:2"}, "start_from": {"as": "resume"}},
    ]
    path.write_text(json.dumps(record))
    run = place.launch(path)
    done = place.run("watch", run, timeout_s=400)
    assert "trained to the end" in done.stdout
    events = place.events(run)
    one, two = [each["data"] for each in events if each["kind"] == "attempt.intended"]
    assert one["instance"] != two["instance"]
    begin = two["resume"]["step"]
    assert 12 <= begin < 30
    assert _steps(place, run, two) == list(range(begin + 1, 31))
    assert _loss(place, run, two, begin + 1) < 0.9 * _loss(place, run, one, 1)
    assert "(saved by 1 ranks)" in place.run("logs", run).stdout
    flagged = [each["data"]["flag"] for each in events if each["kind"] == "health.flagged"]
    assert "resume_ignored" not in flagged


def _lines(place: Place, run: str, attempt: dict[str, Any]) -> list[dict[str, Any]]:
    path = place.state / "runs" / run / attempt["instance"] / "metrics.jsonl"
    lines = map(json.loads, path.read_text().splitlines())
    return [each for each in lines if each["attempt"] == attempt["attempt"]]


def _steps(place: Place, run: str, attempt: dict[str, Any]) -> list[int]:
    return [each["step"] for each in _lines(place, run, attempt)]


def _loss(place: Place, run: str, attempt: dict[str, Any], step: int) -> float:
    found = next(each["loss"] for each in _lines(place, run, attempt) if each["step"] == step)
    return float(found)
