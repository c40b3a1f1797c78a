"""Jobs of several phases with real sshd, tmux, agent and daemon: from one instance type to another,
with a checkpoint handed over, a gate, and a person who is asked."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kit.gpujob import Place, wait_until

pytestmark = pytest.mark.e2e

WARM: dict[str, Any] = {
    "name": "warmup",
    "resources": {"gpu": "cpu:1"},
    "stop_after_steps": 40,
    "gate": {"loss_drop": {"percent": 10, "within_steps": 40}, "no_red_flags": True},
}
FULL: dict[str, Any] = {
    "name": "full",
    "resources": {"gpu": "cpu:2"},
    "start_from": {"phase": "warmup"},
}


def job(place: Place, *phases: dict[str, Any], words: str = "", **keys: Any) -> Path:
    record = f"--record {place.folder}/record.jsonl --step-s 0.2"
    return place.job(f"{record} {words}", phases=list(phases), **keys)


def data(place: Place, run: str, kind: str) -> list[dict[str, Any]]:
    return [each["data"] for each in place.events(run) if each["kind"] == kind]


def published(place: Place, phase: str) -> set[str]:
    manifests = (place.folder / "mirror" / phase / ".gpujob" / "manifests").glob("*.json")
    return {path.stem for path in manifests}


def check_one_at_a_time(place: Place, run: str) -> None:
    """No instance is rented before the one before it is proven gone."""
    turns = [
        (each["kind"], each["data"]["instance"])
        for each in place.events(run)
        if each["kind"] in ("instance.intended", "instance.gone")
    ]
    kinds = [kind for kind, _ in turns]
    assert kinds == ["instance.intended", "instance.gone"] * (len(turns) // 2)
    for (kind, begun), (_, ended) in pairwise(turns):
        assert kind == "instance.gone" or begun == ended


def check_nothing_is_left(place: Place) -> None:
    wait_until(lambda: place.processes() == [], 15, "no process to be left")


@pytest.mark.long
def test_a_warm_up_on_one_rank_and_the_rest_on_two(place: Place) -> None:
    run = place.launch(job(place, WARM, FULL))
    assert place.run("watch", run).returncode == 0
    begun = data(place, run, "phase.begun")
    assert [each["phase"] for each in begun] == ["warmup", "full"]
    start = begun[1]["start"]["step"]
    assert start in (40, 50), "it was stopped at its step, or at the save that was under way"
    assert begun[1]["instance"] is None
    (verdict,) = data(place, run, "gate.judged")
    assert (verdict["verdict"], verdict["key"]) == ("GO", begun[0]["key"])
    first, second = data(place, run, "attempt.intended")
    assert (first["phase"], second["phase"]) == ("warmup", "full")
    assert (first["resume"], second["resume"]["step"]) == (None, start)
    offers = [each["offer"] for each in data(place, run, "instance.intended")]
    assert offers == ["cpu-1", "cpu-2"]
    assert f"training from step {start}" in place.run("logs", run).stdout
    check_one_at_a_time(place, run)
    assert published(place, "warmup") >= {"checkpoint-10", "checkpoint-40"}
    assert "final" not in published(place, "warmup")
    rest = {f"checkpoint-{step}" for step in (50, 60) if step > start}
    assert published(place, "full") == {*rest, "final"}
    pulled = place.run("pull", f"{run}:warmup/latest", "--to", str(place.folder / "here"))
    assert "verified" in pulled.stdout
    assert place.record(run)["phases"][0]["ended"] == "GO"
    check_nothing_is_left(place)


@pytest.mark.long
def test_no_go_ends_the_run_before_the_dear_phase(place: Place) -> None:
    hard = {**WARM, "gate": {"loss_drop": {"percent": 100, "within_steps": 40}}}
    run = place.launch(job(place, hard, FULL))
    done = place.run("watch", run, check=5)
    assert "warmup is NO-GO" in done.stderr
    assert len(data(place, run, "phase.begun")) == 1
    assert place.record(run)["still_billing"] == []
    check_nothing_is_left(place)


def test_a_person_says_yes_and_the_kept_box_goes_on(place: Place) -> None:
    """The next phase needs the same machine: it is kept, prepared anew, and starts from scratch."""
    asking = {"name": "first", "stop_after_steps": 10, "gate": {"approve": True}}
    path = job(place, asking, {"name": "second"}, words="--step-s 0.1", resources={"gpu": "cpu:1"})
    (place.folder / "code" / "settings.json").write_text('{"optimizer": {"bits": 8}}')
    text = json.loads(path.read_text())
    text["run"] = f"cat settings.json; {text['run']}"
    text["phases"][1]["patch"] = {"settings.json": {"optimizer.bits": 32}}
    path.write_text(json.dumps(text))
    run = place.launch(path)
    place.wait_for(run, "phase.held")
    assert place.record(run)["state"] == "WAITING"
    assert "gpujob approve" in place.run("ps").stdout
    assert place.run("approve", run).returncode == 0
    assert place.run("watch", run).returncode == 0
    first, second = data(place, run, "attempt.intended")
    assert first["instance"] == second["instance"]
    assert second["resume"] is None
    log = place.run("logs", run).stdout
    assert log.index('"bits": 8') < log.index('"bits": 32')
    # It trains the very same steps again: equal trees are here once, and under both names.
    assert published(place, "second") >= {"checkpoint-60", "final"}
    assert "verified" in place.run("pull", f"{run}:second/10").stdout
    assert place.run("approve", run, check=9).stderr
    check_nothing_is_left(place)


def test_a_person_says_no(place: Place) -> None:
    asking = {"name": "first", "stop_after_steps": 10, "gate": {"approve": True}, "hold_minutes": 0}
    run = place.launch(job(place, asking, {"name": "second"}, resources={"gpu": "cpu:1"}))
    place.wait_for(run, "instance.gone")
    assert place.record(run)["state"] == "WAITING"
    assert place.record(run)["still_billing"] == []
    assert place.run("approve", run, "--no").returncode == 0
    assert place.wait_end(run)["state"] == "CANCELLED"
    assert published(place, "first") >= {"checkpoint-10"}
    check_nothing_is_left(place)


@pytest.mark.long
def test_a_crash_and_a_lost_box_in_the_second_phase_stay_there(place: Place) -> None:
    first = {"name": "first", "resources": {"gpu": "cpu:1"}, "stop_after_steps": 10}
    second = {"name": "second", "resources": {"gpu": "cpu:2"}}
    run = place.launch(job(place, first, second, words="--crash-at 35"))
    place.wait_for(run, "attempt.exited", 2)
    place.wait_for(run, "attempt.started", 3)
    place.kill_box()
    assert place.run("watch", run).returncode == 0
    one, two, three, four = data(place, run, "attempt.intended")
    assert [each["phase"] for each in (one, two, three, four)] == ["first", *["second"] * 3]
    assert (two["resume"], three["resume"]["step"]) == (None, 30)
    assert two["instance"] == three["instance"] != four["instance"]
    assert four["resume"]["step"] >= 30
    assert [each["phase"] for each in data(place, run, "phase.begun")] == ["first", "second"]
    check_one_at_a_time(place, run)
    assert published(place, "second") >= {"checkpoint-40", "checkpoint-60", "final"}
    check_nothing_is_left(place)


@pytest.mark.long
def test_a_launch_from_the_second_phase_starts_from_an_earlier_run(place: Place) -> None:
    path = job(place, WARM, FULL)
    refused = place.run("launch", str(path), "--yes", "--phase", "full", check=2)
    assert "comes after the gate of warmup, and no earlier run of this job" in refused.stderr
    first = place.launch(path)
    place.wait_for(first, "phase.ended")
    place.run("teardown", first)
    text = json.loads(path.read_text())
    text["checkpoints"]["mirror"] = str(place.folder / "again")
    path.write_text(json.dumps(text))
    changed = place.run("launch", str(path), "--yes", "--phase", "full", "--set", "env={A: b}",
                        check=2)  # fmt: skip
    assert f"{first} passed it with other code, data, settings or image" in changed.stderr
    run = place.launch(path, "--phase", "full")
    assert place.run("watch", run).returncode == 0
    (begun,) = data(place, run, "phase.begun")
    assert begun["phase"] == "full" and begun["start"]["step"] in (40, 50)
    (attempt,) = data(place, run, "attempt.intended")
    assert attempt["resume"] == begun["start"]
    assert f"training from step {attempt['resume']['step']}" in place.run("logs", run).stdout
    check_nothing_is_left(place)
