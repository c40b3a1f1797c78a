"""How often the providers are asked what exists: often only while something is about to change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kit.history import (
    BOX,
    TRAINING,
    Told,
    at,
    attempt,
    begun,
    created,
    exited,
    gone,
    intended,
    prepared,
    run_of,
    running,
    settled,
    started,
    terminating,
)

from orchestrator.flows.rented import Rented

SECOND = "demo-1-2"
STOPPED = (*TRAINING, exited(rc=143, why="stopped"), settled())
HELD: Told = ("phase.held", {"phase": "main", "why": "gate", "reason": "because", "rules": []})
NEXT = (*STOPPED, begun("full", 1), terminating(), gone(), intended(SECOND), created(SECOND))
AGAIN = (*NEXT, running(SECOND), prepared(SECOND), attempt(2, SECOND), started(2))


class Asked:
    def refresh(self, name: str, *, urgent: bool = True) -> None:
        self.urgent = urgent


@pytest.mark.parametrize(
    ("told", "silent", "urgent"),
    [
        (TRAINING, (), False),
        (TRAINING, (BOX,), True),
        (AGAIN, (BOX,), False),
        (AGAIN, (SECOND,), True),
        ((*STOPPED, HELD), (BOX,), True),
        ((*STOPPED, HELD, terminating()), (BOX,), True),
        ((*STOPPED, HELD, terminating(), gone()), (BOX,), False),
    ],
    ids=[
        "it trains",
        "its box is silent",
        "only the box of a phase before is silent",
        "the new one is silent",
        "a person is asked, and a box is kept",
        "it is being ended",
        "nothing is rented",
    ],
)
def test_how_often_is_asked(told: tuple[Told, ...], silent: tuple[str, ...], urgent: bool) -> None:
    fleet = Asked()
    hold: Any = SimpleNamespace(world=SimpleNamespace(fleet=fleet))
    Rented(hold).refresh(run_of(*told), {each: at(1) for each in silent})
    assert fleet.urgent is urgent
