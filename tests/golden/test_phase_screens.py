"""What a person sees of phases: in `ps`, on the screen, in events and tables."""

from __future__ import annotations

from typing import Any

import pytest
from kit.history import (
    BOX,
    DIGEST,
    TRAINING,
    Told,
    acked,
    at,
    attempt,
    begun,
    exited,
    lost,
    mirrored,
    prepared,
    run_of,
    sealed,
    settled,
    started,
)

from orchestrator.core.holdings import never_came
from orchestrator.core.run import Event
from orchestrator.views.cost import cost_text
from orchestrator.views.event import event_line
from orchestrator.views.flags import flag_words, red_flags
from orchestrator.views.runs import checkpoints_table, run_record, runs_table
from orchestrator.views.screen import phase_words

NOW = at(3600)
STOPPED = (
    begun("warm", until_step=20), *TRAINING, sealed(20), mirrored(20), acked(20),
    ("attempt.stopping", {"attempt": 1, "why": "steps", "step": 20}),
    exited(rc=143, why="stopped"), settled(),
)  # fmt: skip
HELD: Told = (
    "phase.held",
    {"phase": "warm", "why": "gate", "reason": "approve: waits for a person", "rules": []},
)
ENDED: Told = ("phase.ended", {"phase": "warm", "verdict": "GO"})
SECOND = (ENDED, begun("full", 1, instance=BOX), prepared(), attempt(2), started(2))

PS = """\
RUN     STATE    AGE    CHECKPOINTS  COST
demo-1  WAITING  59m59s  1            $1.00  RED FLAG: waits for you; `gpujob approve demo-1`: \
approve: waits for a person"""


def test_who_waits_says_for_what() -> None:
    run = run_of(*STOPPED, HELD)
    assert runs_table([run], NOW).split() == PS.split()
    assert flag_words(run) == "RED FLAG: waits for you"
    assert red_flags(run, NOW) == [
        "a person is asked: approve: waits for a person. Its box is kept for a while and costs "
        "$0.02 a minute ($1.00/h). `gpujob approve demo-1`, with --no to end it"
    ]
    record = run_record(run, NOW)
    assert (record["phase"], record["waiting"]) == ("warm", "approve: waits for a person")
    assert [(each["phase"], each["until_step"]) for each in record["phases"]] == [("warm", 20)]


TABLE = """\
PHASE  CHECKPOINT     STEP  SIZE    METRIC  GEN  STATE       WHERE
warm   checkpoint-20  20    1.0 kB          1    verified    /mirror/checkpoint-20, on demo-1-1
full   checkpoint-10  10    1.0 kB          1    on its way  on demo-1-1"""


def test_checkpoints_say_whose_they_are() -> None:
    run = run_of(*STOPPED, *SECOND, sealed(10, 2))
    assert checkpoints_table(run) == TABLE
    assert "PHASE" not in checkpoints_table(run_of(*STOPPED))


def test_what_each_phase_costs() -> None:
    text = cost_text(run_of(*STOPPED, *SECOND), NOW)
    assert "1 (warm)" in text and "2 (full)" in text


def test_what_never_came_is_not_taken_for_its_namesake_of_another_phase() -> None:
    second = sealed(20, 2)[1] | {"digest": DIGEST[21]}
    run = run_of(*STOPPED, *SECOND, ("checkpoint.sealed", second), lost())
    assert never_came(run) == ("full/checkpoint-20",)


LINES: dict[str, tuple[dict[str, Any], str]] = {
    "phase.begun": (
        {**begun("full", 1, instance=BOX, until_step=300)[1],
         "start": {"name": "checkpoint-200", "step": 200, "digest": "d"}},
        "phase full begins, from checkpoint-200, to step 300, on demo-1-1 again",
    ),
    "phase.reached": (
        {"phase": "warm", "step": 21},
        "phase warm has made step 21: its next checkpoint ends it",
    ),
    "phase.extended": (
        {"phase": "warm", "until_step": 200},
        "phase warm goes on to step 200: its gate could not tell",
    ),
    "phase.held": (
        HELD[1],
        "WAITING for a person (`gpujob approve`, or with --no): approve: waits for a person",
    ),
    "phase.ended": (ENDED[1], "phase warm has ended: GO"),
    "gate.judged": (
        {"phase": "warm", "verdict": "NO-GO", "reasons": ["loss_drop: a", "cost: b"]},
        "the gate of warm says NO-GO: loss_drop: a; cost: b",
    ),
    "health.flagged": (
        {"rule": "M5", "flag": "nan", "action": "stop", "words": "NaN", "advice": "do x"},
        "RED FLAG M5 (nan): NaN. do x",
    ),
    "instance.retired": (
        {"instance": BOX, "reason": "nobody answered for 10 min"},
        "demo-1-1 is given back: nobody answered for 10 min",
    ),
    "attempt.stopping": (
        {"attempt": 1, "why": "flag", "step": None},
        "the trainer of attempt 1 is stopped: a person is asked first",
    ),
    "requested.approve": ({"phase": "warm", "yes": False, "by": "ann"}, "ann says no"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LINES)
def test_an_event_in_words(kind: str) -> None:
    data, words = LINES[kind]
    assert event_line(Event("demo-1", 1, at(0), kind, 1, data)).endswith(f"  {words}")


def test_the_phase_on_the_screen() -> None:
    judged = ("gate.judged", {"phase": "warm", "verdict": "GO", "reasons": [], "key": ""})
    phase = run_of(*STOPPED, judged).phase
    assert phase and phase_words(phase) == "warm, to step 20, its gate says GO"
