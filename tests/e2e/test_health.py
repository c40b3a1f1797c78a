"""Health rules on real boxes: a trainer that hangs, one that diverges, one that runs out of memory,
one that reports by itself, and an evaluation that a gate asks after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.gpujob import Place, wait_until

pytestmark = pytest.mark.e2e


def job(place: Place, words: str = "", **keys: Any) -> Path:
    return place.job(words, **{"resources": {"gpu": "cpu:1"}, **keys})


def data(place: Place, run: str, kind: str) -> list[dict[str, Any]]:
    return [each["data"] for each in place.events(run) if each["kind"] == kind]


def check_nothing_is_left(place: Place) -> None:
    wait_until(lambda: place.processes() == [], 15, "no process to be left")


def test_a_trainer_that_hangs_is_taken_down_and_goes_on(place: Place) -> None:
    words = "--hang-at 25 --step-s 0.1 --steps 40"
    run = place.launch(job(place, words, recovery={"hang_minutes": 0.06, "crash": 1}))
    place.wait_end(run)
    assert place.record(run)["state"] == "SUCCEEDED"
    (flag,) = [each for each in data(place, run, "health.flagged") if each["flag"] == "hang"]
    assert (flag["rule"], flag["action"]) == ("M7", "restart")
    kinds = place.kinds(run)
    assert kinds.index("attempt.dumped") < kinds.index("attempt.stopping")
    (dumped,) = data(place, run, "attempt.dumped")
    stacks = (Path(dumped["place"]) / "stacks.txt").read_text()
    assert "trainer.py" in stacks and "thread" in stacks
    assert [each["why"] for each in data(place, run, "attempt.stopping")] == ["hang"]
    first, second = data(place, run, "attempt.intended")
    assert first["instance"] == second["instance"]
    assert (first["resume"], second["resume"]["step"]) == (None, 20)
    check_nothing_is_left(place)


def test_a_nan_that_is_only_printed_ends_the_run(place: Place) -> None:
    run = place.launch(job(place, "--prints --nan-at 15 --step-s 0.2 --steps 400"))
    done = place.run("watch", run, check=6)
    assert "M5" in done.stderr
    (flag,) = [each for each in data(place, run, "health.flagged") if each["action"] == "stop"]
    assert flag["flag"] == "nan" and "step 15" in flag["words"]
    assert len(data(place, run, "attempt.intended")) == 1
    check_nothing_is_left(place)


OOM = "'CUDA out of memory. Tried to allocate 2.00 GiB'"


def test_out_of_memory_is_never_tried_again_blindly(place: Place) -> None:
    run = place.launch(job(place, f"--crash-at 12 --crash-words {OOM}"))
    done = place.run("watch", run, check=1)
    assert "CUDA out of memory" in done.stderr
    (end,) = data(place, run, "attempt.exited")
    assert (end["kind"], end["reaction"]) == ("gpu out of memory", "never blindly")
    assert len(data(place, run, "attempt.intended")) == 1
    check_nothing_is_left(place)


def test_out_of_memory_that_a_person_is_asked_about(place: Place) -> None:
    words = f"--crash-at 12 --crash-words {OOM} --step-s 0.05"
    run = place.launch(job(place, words, health={"oom": "ask"}))
    place.wait_for(run, "phase.held")
    assert place.record(run)["state"] == "WAITING"
    assert place.run("approve", run).returncode == 0
    assert place.run("watch", run).returncode == 0
    assert data(place, run, "attempt.intended")[1]["resume"]["step"] == 10
    check_nothing_is_left(place)


@pytest.mark.parametrize(("base", "code"), [(0.2, 0), (0.1, 5)], ids=["go", "no-go"])
def test_a_gate_on_an_evaluation(place: Place, base: float, code: int) -> None:
    evaluation = {"file": "eval/now.json", "baseline": "base.json", "metric": "wasserstein"}
    gate = {"evaluation": {**evaluation, "improve_percent": 5}}
    words = "--evaluates eval/now.json --step-s 0.02"
    path = job(place, words, phases=[{"name": "first", "gate": gate}])
    (place.folder / "code" / "base.json").write_text(json.dumps({"wasserstein": base}))
    run = place.launch(path)
    place.run("watch", run, check=code)
    (verdict,) = data(place, run, "gate.judged")
    assert verdict["verdict"] == ("GO" if code == 0 else "NO-GO")
    assert "wasserstein" in verdict["reasons"][0]
    check_nothing_is_left(place)
