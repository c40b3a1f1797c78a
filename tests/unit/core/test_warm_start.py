"""A checkpoint that has weights alone is no place to resume from, unless the job takes it."""

from __future__ import annotations

from kit.history import BOX, TRAINING, Told, exited, mirrored, run_of, sealed

from orchestrator.core.facts import Fact, to_event
from orchestrator.core.holdings import newest_source
from orchestrator.core.run import Run


def weights_alone(step: int) -> Told:
    kind, data = sealed(step)
    return kind, {**data, "resumes": False}


def crashed(*told: Told) -> Run:
    return run_of(*TRAINING, *told, mirrored(50), exited(rc=1, why="crash"))


def test_weights_alone_are_resumed_from_by_those_who_take_them() -> None:
    run = crashed(weights_alone(50))
    assert newest_source(run, BOX, warm=False) is None
    taken = newest_source(run, BOX, warm=True)
    assert taken and taken.step == 50


def test_an_older_one_that_can_be_resumed_is() -> None:
    run = crashed(sealed(40), mirrored(40), weights_alone(50))
    source = newest_source(run, BOX, warm=False)
    assert source and source.step == 40


def test_what_the_box_says_of_it_is_on_record() -> None:
    run = run_of(*TRAINING)
    _, data = sealed(50)
    told = {**{k: v for k, v in data.items() if k != "instance"}, "resumes": False}
    event = to_event(run, Fact(BOX, "boot", 1, "", "checkpoint.sealed", told))
    assert event and event[1]["resumes"] is False
