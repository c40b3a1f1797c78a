"""One job of three phases on two instance types, run three times: with a crash in its second phase,
with a NO-GO, and with a person's yes that comes after the daemon died."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kit.gpujob import Place, wait_until

pytestmark = pytest.mark.e2e

PHASES: list[dict[str, Any]] = [
    {
        "name": "warm",
        "resources": {"gpu": "cpu:1"},
        "stop_after_steps": 40,
        "gate": {"loss_drop": {"percent": 10, "within_steps": 40}, "no_red_flags": True},
    },
    {
        "name": "full",
        "resources": {"gpu": "cpu:2"},
        "start_from": {"phase": "warm", "as": "resume"},
        "gate": {"no_red_flags": True},
    },
    {
        "name": "tune",
        "resources": {"gpu": "cpu:1"},
        "start_from": {"phase": "full", "checkpoint": "final", "as": "path"},
        "run": "cat {start}/trainer_state.json; python3 trainer.py --steps 10 {resume}",
    },
]


def job(place: Place) -> Path:
    """Its trainer crashes once, wherever it is the first to come to step 65."""
    words = f"--steps 100 --step-s 0.1 --crash-at 65 --crash-once {place.folder}/crashed"
    resume = {"args": "--resume {checkpoint}"}
    return place.job(words, phases=PHASES, checkpoints={"path": "out", "resume": resume})


def data(place: Place, run: str, kind: str) -> list[dict[str, Any]]:
    return [each["data"] for each in place.events(run) if each["kind"] == kind]


def check_money(place: Place, run: str) -> None:
    """Each instance is proven gone before the next is rented, and none is left."""
    kinds = ("instance.intended", "instance.gone")
    turns = [
        (each["kind"], each["data"]["instance"])
        for each in place.events(run)
        if each["kind"] in kinds
    ]
    assert [kind for kind, _ in turns] == list(kinds) * (len(turns) // 2)
    for (kind, begun), (_, ended) in pairwise(turns):
        assert kind == "instance.gone" or begun == ended
    assert place.record(run)["still_billing"] == []
    wait_until(lambda: place.processes() == [], 15, "no process to be left")


def check_ladder(place: Place, run: str) -> None:
    """The three phases, what was handed over, and on what each of them ran."""
    begun = data(place, run, "phase.begun")
    assert [each["phase"] for each in begun] == ["warm", "full", "tune"]
    verdicts = {each["phase"]: (each["verdict"], each["key"]) for each in _judged(place, run)}
    assert verdicts == {each["phase"]: ("GO", each["key"]) for each in begun[:2]}
    offers = [each["offer"] for each in data(place, run, "instance.intended")]
    assert offers == ["cpu-1", "cpu-2", "cpu-1"]
    start, final = begun[1]["start"], begun[2]["start"]
    assert (begun[0]["start"], final["name"], final["step"]) == (None, "final", 100)
    assert start["step"] in (40, 50, 60), "it was stopped at its step, or at a save under way"
    log = place.run("logs", run).stdout
    assert f"training from step {start['step']} to 100" in log
    assert '"global_step": 100, "max_steps": 100}training from step 0 to 10\n' in log
    phases = place.record(run)["phases"]
    assert [each["ended"] for each in phases[:2]] == ["GO", "GO"]
    for each, last in zip(phases, ("checkpoint-40", "final", "final"), strict=True):
        assert (Path(each["mirror"]) / last).is_dir()


def _judged(place: Place, run: str) -> list[dict[str, Any]]:
    return data(place, run, "gate.judged")


def test_with_a_crash_in_its_second_phase(place: Place) -> None:
    run = place.launch(job(place))
    assert place.run("watch", run).returncode == 0
    check_ladder(place, run)
    warm, full, again, tune = data(place, run, "attempt.intended")
    assert [each["phase"] for each in (warm, full, again, tune)] == ["warm", "full", "full", "tune"]
    assert (full["instance"], again["resume"]["step"]) == (again["instance"], 60)
    assert (warm["resume"], tune["resume"]) == (None, None)
    (crash,) = [each for each in data(place, run, "attempt.exited") if each["why"] == "crash"]
    assert (crash["attempt"], crash["message"]) == (2, "RuntimeError: boom")
    check_money(place, run)


@pytest.mark.long
def test_with_a_no_go(place: Place) -> None:
    path = job(place)
    run = place.launch(path, "--set", "phases.0.gate.loss_drop.percent=99.9")
    assert "warm is NO-GO" in place.run("watch", run, check=5).stderr
    assert [each["phase"] for each in data(place, run, "phase.begun")] == ["warm"]
    assert [each["verdict"] for each in _judged(place, run)] == ["NO-GO"]
    check_money(place, run)
    refused = place.run("launch", str(path), "--yes", "--phase", "full", check=2)
    assert "comes after the gate of warm" in refused.stderr


@pytest.mark.long
def test_with_a_person_who_says_yes_after_the_daemon_died(place: Place) -> None:
    (place.folder / "crashed").touch()
    run = place.launch(job(place), "--set", "phases.0.gate.approve=true")
    place.wait_for(run, "phase.held")
    place.kill_daemon()
    assert place.record(run)["state"] == "WAITING"
    assert "it waited for" in place.run("approve", run).stdout
    assert place.run("watch", run).returncode == 0
    check_ladder(place, run)
    assert len(data(place, run, "attempt.intended")) == 3
    check_money(place, run)
