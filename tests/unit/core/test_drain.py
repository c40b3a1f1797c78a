"""How long a drain waits for the only copy of a checkpoint: for a disk with room, for a slow
link, and never past the budget."""

from __future__ import annotations

from datetime import datetime

import pytest
from kit.history import BOX, ENDED, OFFERS, Told, at, drain, planned

from orchestrator.core.actions import Action, Deadlines, Drained, Seen, Wait
from orchestrator.core.decide import decide
from orchestrator.core.drain import drain_until
from orchestrator.core.fold import fold
from orchestrator.core.plan import Stage
from orchestrator.core.run import Event, Run

HOUR = 3600.0
BEGAN_S = 11.0
PAUSED: Told = ("mirror.paused", {"reason": "full", "message": "The disk is full."})
RESUMED: Told = ("mirror.resumed", {})
RESUMED_AT = ("mirror.resumed", 1, {})


def run_with(*told: Told, **limits: float) -> Run:
    """As `run_of`, with a budget; it drains since BEGAN_S, at $1 an hour."""
    events = [planned(**limits), *ENDED, drain(), *told]
    run = Run(id="demo-1")
    for seq, (kind, data) in enumerate(events, start=1):
        run = fold(run, Event(run.id, seq, at(seq), kind, 1, data))
    return run


def choose(
    run: Run, now: datetime, moving_at: datetime | None = None, left_s: float = 60
) -> Action:
    seen = Seen(
        presence={BOX: "present"}, agent_alive=True, moving_at=moving_at, expected_drain_s=left_s
    )
    return decide(run, (Stage("main", OFFERS),), seen, now, Deadlines())


@pytest.mark.parametrize("hours", [3, 12, 23])
def test_a_full_disk_here_does_not_end_the_box_with_the_only_copy(hours: float) -> None:
    run = run_with(PAUSED)
    assert isinstance(choose(run, at(hours * HOUR)), Wait)


def test_without_a_budget_it_waits_a_day_and_no_longer() -> None:
    run = run_with(PAUSED)
    action = choose(run, at(25 * HOUR))
    assert isinstance(action, Drained)
    assert action.missing == ("checkpoint-60", "final")
    assert "24h" in action.why


def test_a_standstill_without_a_pause_ends_after_two_hours() -> None:
    action = choose(run_with(PAUSED, RESUMED), at(3 * HOUR))
    assert isinstance(action, Drained)
    assert "nothing moved" in action.why


def test_what_stood_still_while_the_disk_was_full_or_nobody_looked_is_nobodys_fault() -> None:
    run, resumed_s = run_with(PAUSED), 5 * HOUR
    run = fold(run, Event(run.id, run.seq + 1, at(resumed_s), *RESUMED_AT))
    assert isinstance(choose(run, at(resumed_s + HOUR)), Wait)
    assert isinstance(choose(run, at(resumed_s + 3 * HOUR)), Drained)
    looked = Seen(presence={BOX: "present"}, agent_alive=True, watching_since=at(5 * HOUR))
    action = decide(run_with(), (Stage("main", OFFERS),), looked, at(5 * HOUR + 1), Deadlines())
    assert isinstance(action, Wait)


@pytest.mark.parametrize(
    ("limits", "hours", "waits"),
    [
        ({"budget_usd": 5.0}, 4.9, True),
        ({"budget_usd": 5.0}, 5.1, False),
        ({"budget_hours": 30.0}, 29.0, True),
        ({"budget_hours": 30.0}, 30.1, False),
    ],
)
def test_the_budget_ends_the_wait(limits: dict[str, float], hours: float, waits: bool) -> None:
    action = choose(run_with(PAUSED, **limits), at(hours * HOUR))
    assert isinstance(action, Wait if waits else Drained)
    assert waits or "budget" in action.why  # type: ignore[union-attr]


def test_the_trainer_has_its_time_to_save_although_the_budget_is_used_up() -> None:
    run = run_with(budget_hours=0.001)
    assert isinstance(choose(run, at(BEGAN_S + 60)), Wait)
    assert isinstance(choose(run, at(BEGAN_S + 121)), Drained)


@pytest.mark.parametrize(
    ("hours", "left_s", "waits"),
    [
        (20, 1e9, True),
        (25, 1e9, False),
        (25, 10 * HOUR, True),
        (73, 10 * HOUR, False),
    ],
    ids=["its day", "bytes that trickle", "bytes that will be here", "three days"],
)
def test_bytes_that_move_have_a_day_and_more_only_when_they_will_be_here(
    hours: float, left_s: float, waits: bool
) -> None:
    now = at(hours * HOUR)
    action = choose(run_with(), now, moving_at=now, left_s=left_s)
    assert isinstance(action, Wait if waits else Drained)


def test_moving_bytes_end_with_the_budget() -> None:
    now = at(6 * HOUR)
    action = choose(run_with(budget_usd=5.0), now, moving_at=now)
    assert isinstance(action, Drained)
    assert "$5.00" in action.why


def test_until_when_a_drain_waits_is_known_at_its_begin() -> None:
    now = at(HOUR)
    assert drain_until(run_with(), now, Deadlines()) == at(25 * HOUR)
    until = drain_until(run_with(budget_usd=3.0), now, Deadlines())
    assert abs((until - at(3 * HOUR)).total_seconds()) < 10
    spent = drain_until(run_with(budget_usd=0.5), now, Deadlines())
    assert spent == at(HOUR + 120)
