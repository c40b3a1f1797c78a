"""What a box tells of its dead-man switch: shown to a person, and changes nothing in the run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from kit.history import BOX, TRAINING, run_of
from pydantic import ValidationError

from orchestrator.core.facts import to_event
from orchestrator.core.fold import fold
from orchestrator.core.run import Event
from orchestrator.core.spec.job import Recovery
from orchestrator.views.event import event_line
from remote.contract import ContractError, Fact

AT = datetime(2026, 1, 1, tzinfo=UTC)


def fact(kind: str, **data: Any) -> Fact:
    return Fact(BOX, "boot", 1, "2026-01-01T00:00:00Z", kind, data)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            fact("deadman.fired", attempt=1, reason="no controller was heard for 3600 s"),
            f"{BOX} acted by itself: no controller was heard for 3600 s",
        ),
        (
            fact("deadman.refused", attempt=1, status=403, message="not allowed"),
            f"{BOX} still bills, it could not stop itself: not allowed",
        ),
    ],
    ids=lambda each: each.kind if isinstance(each, Fact) else "",
)
def test_it_is_shown_and_folds_to_nothing(told: Fact, shown: str) -> None:
    run = run_of(*TRAINING)
    event = to_event(run, told)
    assert event
    kind, data = event
    assert (kind, data["instance"], data["attempt"]) == (told.kind, BOX, 1)
    after = fold(run, Event(run.id, run.seq + 1, AT, kind, 1, data))
    assert after.seq == run.seq + 1
    assert (after.state, after.instances, after.attempts) == (
        run.state,
        run.instances,
        run.attempts,
    )
    assert event_line(Event(run.id, 1, AT, kind, 1, data)).endswith(shown)


def test_a_long_story_is_cut() -> None:
    event = to_event(run_of(*TRAINING), fact("deadman.fired", attempt=1, reason="x" * 10_000))
    assert event and len(event[1]["reason"]) == 500


@pytest.mark.parametrize("attempt", [0, -1, None, "1", True], ids=str)
def test_an_attempt_that_is_none_is_refused(attempt: object) -> None:
    with pytest.raises(ContractError):
        to_event(run_of(*TRAINING), fact("deadman.fired", attempt=attempt, reason=""))


@pytest.mark.parametrize(("minutes", "good"), [(0, True), (0.2, True), (0.1, False), (-1, False)])
def test_how_long_a_box_may_be_an_orphan(minutes: float, good: bool) -> None:
    if good:
        assert Recovery(orphan_minutes=minutes).orphan_minutes == minutes
    else:
        with pytest.raises(ValidationError, match="orphan_minutes"):
            Recovery(orphan_minutes=minutes)
