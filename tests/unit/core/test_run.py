"""The fold: states, spending, and what a lost box does to a run that seemed over."""

from __future__ import annotations

import json

import pytest
from kit.history import (
    BOOTED,
    BOX,
    ENDED,
    FINISHED,
    TEARDOWN,
    TRAINING,
    Told,
    at,
    drain,
    drained,
    exited,
    gone,
    intended,
    lost,
    mirrored,
    run_of,
    sealed,
    settled,
    terminating,
)

from orchestrator.core.codec import from_json, to_json
from orchestrator.core.run import Event, Run, fold

HOME = (*ENDED, mirrored(60), mirrored(60, final=True))

STATES: list[tuple[str, tuple[Told, ...]]] = [
    ("PLANNED", ()),
    ("PROVISIONING", (intended(),)),
    ("PREPARING", BOOTED),
    ("RUNNING", TRAINING),
    ("RECOVERING", (*TRAINING, exited(rc=1, why="crash"))),
    ("RECOVERING", (*TRAINING, lost())),
    ("RECOVERING", (intended(), lost())),
    ("DRAINING", (*TRAINING, TEARDOWN, drain("CANCELLED", "asked"))),
    ("TERMINATING", (*HOME, drain(), drained())),
    ("SUCCEEDED", (*HOME, drain(), drained(), terminating(), gone(), FINISHED)),
    ("FAILED", (*TRAINING, drain("FAILED", "crash"), drained(), gone(), FINISHED)),
]


@pytest.mark.parametrize(("state", "told"), STATES)
def test_the_state_follows_from_the_events(state: str, told: tuple[Told, ...]) -> None:
    assert run_of(*told).state == state


@pytest.mark.parametrize("told", [told for _, told in STATES])
def test_a_fold_survives_json(told: tuple[Told, ...]) -> None:
    run = run_of(*told)
    assert from_json(Run, json.loads(json.dumps(to_json(run)))) == run


def test_an_unknown_event_changes_nothing_but_the_sequence() -> None:
    run = run_of(*TRAINING)
    later = fold(run, Event(run.id, run.seq + 1, at(99), "from.the.future", 1, {"x": 1}))
    assert (later.seq, later.attempts, later.instances) == (
        run.seq + 1,
        run.attempts,
        run.instances,
    )


def test_hours_are_counted_from_the_intent_to_the_proof() -> None:
    run = run_of(*TRAINING, terminating(), gone(), every_s=600)
    # intended is event 2 and gone event 9: 7 x 10 minutes at $1 an hour.
    assert run.spent_usd(at(10**6)) == pytest.approx(7 * 600 / 3600)
    assert run.still_billing == ()


def test_a_refused_instance_costs_nothing() -> None:
    refusal: Told = ("instance.refused", {"instance": BOX, "why": "refused", "message": "no"})
    run = run_of(intended(), refusal, every_s=3600)
    assert run.spent_usd(at(10**6)) == 0
    assert run.still_billing == ()


def test_success_without_the_final_weights_here_is_none() -> None:
    run = run_of(*ENDED, drain(), drained("final"))
    assert run.outcome and (run.outcome.state, run.outcome.code) == ("FAILED", "integrity")


def test_a_box_lost_before_the_box_had_sealed_everything_is_a_lost_attempt() -> None:
    run = run_of(*TRAINING, exited(), lost())
    assert run.attempt and run.attempt.lost


def test_a_cancelled_run_stays_cancelled_when_its_box_dies() -> None:
    run = run_of(*TRAINING, TEARDOWN, drain("CANCELLED", "asked"), lost())
    assert run.outcome and run.outcome.state == "CANCELLED"


def test_a_settled_crash_is_no_lost_attempt() -> None:
    run = run_of(*TRAINING, sealed(10), exited(rc=1, why="crash"), settled(), lost())
    assert run.attempt and not run.attempt.lost
