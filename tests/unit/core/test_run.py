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
    attempt,
    created,
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
    started,
    terminating,
)

from orchestrator.core.codec import from_json, to_json
from orchestrator.core.fold import fold
from orchestrator.core.run import Event, Run

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


RESTARTED: Told = (
    "instance.restarted",
    {"instance": BOX, "reason": "x", "host": "h", "port": 1, "restart_marker": "2"},
)


@pytest.mark.parametrize(("before", "lost"), [((sealed(60, final=True),), False), ((), True)])
def test_a_restart_that_kept_the_disk_kept_the_final_weights(
    before: tuple[Told, ...], lost: bool
) -> None:
    run = run_of(*TRAINING, sealed(60), exited(), *before, RESTARTED)
    assert run.attempt and (run.attempt.lost, run.attempt.settled) == (lost, not lost)


def test_a_restart_in_a_drain_goes_on_with_it() -> None:
    run = run_of(*ENDED, drain(), RESTARTED)
    assert run.outcome and run.outcome.state == "SUCCEEDED"


def test_a_settled_crash_is_no_lost_attempt() -> None:
    run = run_of(*TRAINING, sealed(10), exited(rc=1, why="crash"), settled(), lost())
    assert run.attempt and not run.attempt.lost


def hours(*told: Told, now_s: float = 7200.0) -> float:
    (instance,) = run_of(*told).instances
    return instance.hours(at(now_s))


def priced(usd_per_hour: float) -> Told:
    return "instance.priced", {"instance": BOX, "usd_per_hour": usd_per_hour}


def released() -> Told:
    return "instance.released", {"instance": BOX}


def test_the_cost_follows_the_prices_that_the_provider_told() -> None:
    # Intended at 2 h with $1/h, $3/h from 4 h on, gone at 6 h: two hours at each.
    run = run_of(intended(), created(), priced(3.0), terminating(), gone(), every_s=3600)
    (instance,) = run.instances
    assert instance.hours(at(10 * 3600)) == pytest.approx(4)
    assert run.spent_usd(at(10 * 3600)) == pytest.approx(2 * 1.0 + 2 * 3.0)


def test_what_lives_costs_until_now() -> None:
    run = run_of(intended(), every_s=3600)
    assert run.spent_usd(at(5 * 3600)) == pytest.approx(3.0)


def test_nothing_rented_costs_nothing() -> None:
    refused = ("instance.refused", {"instance": BOX, "why": "no_capacity", "message": "none"})
    assert run_of(intended(), refused).spent_usd(at(1e6)) == 0


def test_billing_ends_with_the_order_and_not_with_the_proof() -> None:
    told = (intended(), created(), terminating(), released(), gone())
    assert hours(*told) == pytest.approx(3 / 3600)


def test_a_box_that_vanished_ended_when_it_was_first_missing() -> None:
    vanished = ("instance.gone", {"instance": BOX, "ended_at": at(30).isoformat()})
    (instance,) = run_of(intended(), created(), vanished, every_s=20).instances
    assert instance.ends_at(at(999)) == at(30)


def test_time_is_rounded_up_to_what_the_provider_bills() -> None:
    kind, data = intended()
    by_minute = (kind, {**data, "billing_unit_s": 60})
    assert hours(by_minute, now_s=2 + 61) == pytest.approx(120 / 3600)
    assert hours(by_minute, now_s=2 + 60) == pytest.approx(60 / 3600)


def test_each_attempt_pays_for_its_part_of_the_box() -> None:
    again = (attempt(2), started(2), terminating(), gone())
    run = run_of(*TRAINING, exited(rc=1, why="crash"), *again, every_s=3600)
    # Rented at 2 h; attempt 2 is intended at 9 h, the box is gone at 12 h.
    costs = dict(run.attempt_costs(at(1e6)))
    assert costs == {0: 0.0, 1: pytest.approx(7.0), 2: pytest.approx(3.0)}
    assert sum(costs.values()) == pytest.approx(run.spent_usd(at(1e6)))


def test_a_wiped_machine_is_paid_once_under_two_names() -> None:
    wiped = (
        "instance.wiped",
        {
            "instance": BOX,
            "successor": "demo-1-2",
            "reason": "so",
            "host": "127.0.0.1",
            "port": 23,
            "restart_marker": "m2",
        },
    )
    run = run_of(*TRAINING, wiped, every_s=60)
    assert run.spent_usd(at(7200)) == pytest.approx((7200 - 120) / 3600)
    first, second = run.instances
    assert (first.lost, first.gone_at) == ("so", second.intended_at)
    assert run.instance == second and run.attempts[0].lost
