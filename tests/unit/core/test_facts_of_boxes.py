"""A box is hostile input: what becomes an event, what changes nothing, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from kit.history import BOX, DIGEST, TRAINING, drain, exited, run_of, sealed, settled

from orchestrator.core.facts import to_event
from orchestrator.core.signatures import classify
from remote.contract import ContractError, Fact

SEALED = {
    "attempt": 1,
    "name": "checkpoint-10",
    "generation": 1,
    "step": 10,
    "max_steps": 60,
    "size_bytes": 5,
    "digest": DIGEST[10],
    "final": False,
}


def fact(kind: str, **data: Any) -> Fact:
    return Fact(BOX, "boot", 1, "2026-01-01T00:00:00Z", kind, data)


def test_a_seal_becomes_an_event() -> None:
    told = to_event(run_of(*TRAINING), fact("checkpoint.sealed", **SEALED, world_size=2))
    assert told == ("checkpoint.sealed", {**SEALED, "instance": BOX})


def test_the_same_bytes_under_the_same_name_are_told_once() -> None:
    run = run_of(*TRAINING, sealed(10))
    again = fact("checkpoint.sealed", **{**SEALED, "generation": 2})
    assert to_event(run, again) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../../etc"},
        {"name": "a/b"},
        {"name": "x\n"},
        {"name": ""},
        {"digest": "zz"},
        {"digest": None},
        {"size_bytes": -1},
        {"size_bytes": 2**70},
        {"size_bytes": True},
        {"step": "10"},
        {"generation": 0},
        {"attempt": None},
    ],
    ids=str,
)
def test_what_no_honest_agent_says_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        to_event(run_of(*TRAINING), fact("checkpoint.sealed", **{**SEALED, **wrong}))


def test_an_exit_is_told_once_and_only_of_an_attempt_of_this_box() -> None:
    told = fact("trainer.exited", attempt=1, rc=1, tail="ValueError: no\n")
    event = to_event(run_of(*TRAINING), told)
    assert event == (
        "attempt.exited",
        {
            "attempt": 1,
            "rc": 1,
            "why": "crash",
            "message": "ValueError: no",
            "kind": "crash",
            "reaction": "retry in place",
            "advice": "restart from a checkpoint",
        },
    )
    assert to_event(run_of(*TRAINING, exited()), told) is None
    assert to_event(run_of(*TRAINING), fact("trainer.exited", attempt=7, rc=1, tail="")) is None


def test_an_exit_that_was_asked_for_is_no_crash() -> None:
    run = run_of(*TRAINING, drain("CANCELLED", "asked"))
    event = to_event(run, fact("trainer.exited", attempt=1, rc=143, tail=""))
    assert event and event[1]["why"] == "stopped"


def test_settled_is_told_once() -> None:
    told = fact("agent.settled", attempt=1)
    assert to_event(run_of(*TRAINING, exited()), told) == ("attempt.settled", {"attempt": 1})
    assert to_event(run_of(*TRAINING, exited(), settled()), told) is None


def test_an_unknown_fact_changes_nothing() -> None:
    assert to_event(run_of(*TRAINING), fact("from.the.future", x=1)) is None


@pytest.mark.parametrize(
    ("rc", "tail", "why", "words"),
    [
        (0, "", "ok", ""),
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "oom", "CUDA"),
        (1, "huggingface_hub.errors.GatedRepoError: 403", "config", "GatedRepoError"),
        (127, "bash: line 1: no-such: command not found", "config", "command not found"),
        (2, "error: max_steps: must be positive", "config", "max_steps"),
        (1, "Traceback (most recent call last):\nRuntimeError: boom\n", "crash", "boom"),
        (137, "", "crash", "exit code 137"),
        (1, "10%|#\rValueError: x\r", "crash", "ValueError: x"),
    ],
    ids=["ok", "oom", "gated", "127", "usage", "traceback", "killed", "carriage returns"],
)
def test_why_a_trainer_ended(rc: int, tail: str, why: str, words: str) -> None:
    found, message = classify(rc, tail)
    assert found == why
    assert words in message
