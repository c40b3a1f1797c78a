"""Whose answer `approve` takes, and which question it is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kit.history import TEARDOWN, TRAINING, Told, begun, drain, run_of

from orchestrator.cli.approve import _question
from orchestrator.cli.home import choose_waiting_run
from orchestrator.core.run import Run
from orchestrator.errors import Ambiguous, NotFound

HELD: Told = ("phase.held", {"phase": "warm", "why": "gate", "reason": "because", "rules": []})
YES: Told = ("requested.approve", {"phase": "warm", "yes": True, "by": "me"})
ENDED: Told = ("phase.ended", {"phase": "warm", "verdict": "GO"})


def run(*told: Told, name: str = "demo-1") -> Run:
    made = run_of(begun("warm"), *TRAINING, *told)
    return replace(made, id=name, folder=str(Path.cwd()))


class Runs:
    def __init__(self, *runs: Run) -> None:
        self._runs = list(runs)

    def runs(self) -> list[Run]:
        return self._runs


def test_a_question_that_is_open_is_answered() -> None:
    phase, waiting = _question(run(HELD))
    assert (phase.name, waiting.reason) == ("warm", "because")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ((), "it is RUNNING"),
        ((HELD, YES), "it has been answered"),
        ((HELD, YES, ENDED), "it is RUNNING"),
        ((HELD, TEARDOWN), "it is being torn down"),
        ((HELD, drain("CANCELLED", "asked")), "it is DRAINING"),
    ],
    ids=["none", "twice", "late", "after a teardown", "while it ends"],
)
def test_an_answer_to_nothing_changes_nothing(told: tuple[Told, ...], says: str) -> None:
    with pytest.raises(NotFound, match=says):
        _question(run(*told))


def test_the_run_of_this_folder_that_waits_is_meant() -> None:
    newer, waits = run(name="demo-3"), run(HELD, name="demo-2")
    assert choose_waiting_run(Runs(newer, waits), None) is waits  # type: ignore[arg-type]
    assert choose_waiting_run(Runs(newer, waits), "demo-3") is newer  # type: ignore[arg-type]
    assert choose_waiting_run(Runs(newer), None) is newer  # type: ignore[arg-type]
    two = Runs(waits, run(HELD, name="demo-1"))
    with pytest.raises(Ambiguous, match="2 runs of this folder wait for a person"):
        choose_waiting_run(two, None)  # type: ignore[arg-type]
