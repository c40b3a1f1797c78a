"""What is done about a trainer that hangs, and about the class of error that one ended of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kit.history import (
    BOX,
    OFFERS,
    TRAINING,
    Told,
    acked,
    at,
    attempt,
    mirrored,
    run_of,
    sealed,
    settled,
    started,
)

from orchestrator.core.actions import (
    Action,
    AskApproval,
    Deadlines,
    Drain,
    Dump,
    Halt,
    Resume,
    Seen,
    Start,
    Stop,
    Wait,
)
from orchestrator.core.decide import decide
from orchestrator.core.facts import to_event
from orchestrator.core.health.judge import Finding
from orchestrator.core.health.rule import Evidence, Verdict
from orchestrator.core.holdings import crashes_spent, host_losses
from orchestrator.core.plan import Stage
from orchestrator.core.run import Outcome
from remote.contract import Fact

STAGE = Stage("main", OFFERS)
PRESENT = Seen(presence={BOX: "present"}, agent_alive=True)
ON = (*TRAINING, sealed(10), mirrored(10), acked(10))
DUMPED: Told = ("attempt.dumped", {"attempt": 1, "words": "3 processes", "place": "/x"})
HALTED: Told = ("attempt.stopping", {"attempt": 1, "why": "hang", "step": None})
TEARDOWN: Told = ("requested.teardown", {"reason": "enough"})
NEVER, ELSEWHERE, AGAIN = "never blindly", "another host", "retry in place"


def flag(action: Any, rule: str = "M7", name: str = "hang") -> Finding:
    return Finding(rule, (), name, Verdict.FAIL, action, Evidence("silent"), "")


def seen(*flags: Finding, **changes: Any) -> Seen:
    return replace(PRESENT, flags=flags, **changes)


def ended(reaction: str = "", number: int = 1, kind: str = "crash", **changes: Any) -> Told:
    data = {"attempt": number, "rc": 1, "why": "crash", "message": "words", "kind": kind,
            "reaction": reaction, "advice": "do this"}  # fmt: skip
    return "attempt.exited", {**data, **changes}


def killed(number: int = 1) -> Told:
    return ended("", number, kind="", rc=143, why="stopped")


def asked(*rules: str) -> Told:
    data = {"phase": "main", "why": "flag", "reason": "because", "rules": list(rules)}
    return "phase.held", data


YES: Told = ("requested.approve", {"phase": "main", "yes": True, "by": "me"})
RESTART, STOP, ASK, WARN = (flag(each) for each in ("restart", "stop", "ask", "warn"))
OOM = (ended(NEVER, why="oom"), settled())
ASKS = replace(STAGE, asks_oom=True)

CASES: dict[str, tuple[tuple[Told, ...], Seen, Action | type[Action]]] = {
    "a hang is taken down first": (ON, seen(RESTART), Dump(1)),
    "also before the run is stopped": (ON, seen(STOP), Dump(1)),
    "also before a person is asked": (ON, seen(ASK), Dump(1)),
    "while that is under way": (ON, seen(RESTART, busy=frozenset({"dump:1"})), Wait),
    "a warning ends nothing": (ON, seen(WARN), Wait("the trainer runs")),
    "a teardown does not wait for it": ((*ON, TEARDOWN), seen(RESTART), Drain),
    "then it is halted": ((*ON, DUMPED), seen(RESTART), Halt(1, "hang")),
    "or the run stopped": ((*ON, DUMPED), seen(STOP), Drain),
    "or a person asked": ((*ON, DUMPED), seen(ASK), AskApproval),
    "and no save is waited for then": ((*ON, DUMPED, asked("M7")), seen(ASK), Halt(1, "flag")),
    "it is ended": ((*ON, DUMPED, HALTED), PRESENT, Stop(1, "TERM")),
    "and goes on from its checkpoint": ((*ON, DUMPED, HALTED, killed(), settled()), PRESENT, Start),
    "out of memory is never retried": ((*ON, *OOM), PRESENT, Drain),
    "while a person is asked it waits": ((*ON, *OOM, asked("M4")), PRESENT, Wait),
    "and says yes": ((*ON, *OOM, asked("M4"), YES), PRESENT, Start),
    "bad hardware is left": ((*ON, ended(ELSEWHERE), settled()), PRESENT,
                             Resume(BOX, "crash: words")),
    "once what it sealed is here": ((*ON, sealed(20), ended(ELSEWHERE), settled()), PRESENT, Wait),
    "a crash is retried in place": ((*ON, ended(AGAIN), settled()), PRESENT, Start),
    "an end of before there were reactions": ((*ON, ended("", why="config"), settled()), PRESENT,
                                              Drain),
}  # fmt: skip


@pytest.mark.parametrize(("told", "now", "expected"), CASES.values(), ids=CASES)
def test_decide(told: tuple[Told, ...], now: Seen, expected: Action | type[Action]) -> None:
    action = decide(run_of(*told), (STAGE,), now, at(len(told) + 1), Deadlines())
    assert action == expected or (isinstance(expected, type) and isinstance(action, expected))


def test_what_cannot_come_home_from_bad_hardware_is_not_waited_for_for_ever() -> None:
    run = run_of(*ON, sealed(20), ended(ELSEWHERE), settled())
    late = at(100 + Deadlines().drain_s)
    assert isinstance(decide(run, (STAGE,), PRESENT, late, Deadlines()), Resume)


def test_a_hang_is_a_crash_and_its_budget_ends() -> None:
    hung = (DUMPED, HALTED, killed(), settled())
    run = run_of(*ON, *hung)
    assert crashes_spent(run) == 1, "it had gained a checkpoint"
    second = ("attempt.stopping", {"attempt": 2, "why": "hang", "step": None})
    dumped = ("attempt.dumped", {"attempt": 2, "words": "3 processes", "place": "/x"})
    again = (attempt(2, resume=10), started(2), dumped, second, killed(2), settled(2))
    run = run_of(*ON, *hung, *again)
    assert crashes_spent(run) == 3, "and then none"
    action = decide(run, (STAGE,), PRESENT, at(30), Deadlines())
    assert isinstance(action, Drain) and action.outcome.code == "crash"
    assert "the trainer hung and was ended (3 processes)" in action.outcome.reason


def test_bad_hardware_is_the_machines_loss() -> None:
    lost = ("instance.lost", {"instance": BOX, "reason": "gpu fault"})
    run = run_of(*ON, ended(ELSEWHERE), settled(), lost)
    assert (crashes_spent(run), host_losses(run)) == (0, 1)


def test_what_a_person_allowed_is_allowed_once() -> None:
    again = (attempt(2, resume=10), started(2), ended(NEVER, 2, why="oom"), settled(2))
    run = run_of(*ON, *OOM, asked("M4"), YES, *again)
    action = decide(run, (STAGE,), PRESENT, at(30), Deadlines())
    assert isinstance(action, Drain)
    assert action.outcome == Outcome(
        "FAILED", "the trainer ended with 1 (oom): words; do this", "config"
    )


def test_a_hang_that_comes_again_is_asked_about_again() -> None:
    run = run_of(*ON, DUMPED, asked("M7", "M5"), YES)
    assert run.phase and run.phase.waived == ("M5",)


def test_a_person_may_be_asked_about_memory() -> None:
    for told in ((*ON, *OOM[:1]), (*ON, *OOM)):
        action = decide(run_of(*told), (ASKS,), PRESENT, at(30), Deadlines())
        assert isinstance(action, AskApproval) and action.rules == ("M4",)
    run = run_of(*ON, *OOM, asked("M4"), YES)
    assert isinstance(decide(run, (ASKS,), PRESENT, at(30), Deadlines()), Start)


def exit_of(tail: str, *told: Told, rc: int = 1, number: int = 1, **data: Any) -> dict[str, Any]:
    fact = Fact(BOX, "b", 1, "2026-01-01T00:00:00Z", "trainer.exited",
                {"attempt": number, "rc": rc, "tail": tail, **data})  # fmt: skip
    event = to_event(run_of(*TRAINING, *told), fact)
    assert event
    return event[1]


@pytest.mark.parametrize(
    ("tail", "rc", "data", "kind", "reaction"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory", 1, {}, "gpu out of memory", NEVER),
        ("RuntimeError: uncorrectable ECC error", 1, {}, "gpu fault", ELSEWHERE),
        ("ncclSystemError: System call failed", 1, {}, "nccl", AGAIN),
        ("OSError: No space left on device", 1, {}, "disk full", NEVER),
        ("401 Client Error: Unauthorized", 1, {}, "no access", NEVER),
        ("bash: line 1:  77 Killed  python3 x.py", 137, {}, "killed", AGAIN),
        ("bash: line 1:  77 Killed  python3 x.py", 137, {"oom_killed": True},
         "host out of memory", NEVER),
        ("", 137, {"oom_killed": True}, "host out of memory", NEVER),
        ("ValueError: no", 1, {}, "crash", AGAIN),
    ],
)  # fmt: skip
def test_the_class_of_an_end_goes_on_record(
    tail: str, rc: int, data: dict[str, Any], kind: str, reaction: str
) -> None:
    told = exit_of(tail, rc=rc, **data)
    assert (told["kind"], told["reaction"]) == (kind, reaction)


def test_nccl_twice_is_the_hosts() -> None:
    first = ended(AGAIN, kind="nccl")
    again = (first, settled(), attempt(2), started(2))
    told = exit_of("ncclSystemError: x", *again, number=2)
    assert told["reaction"] == ELSEWHERE
