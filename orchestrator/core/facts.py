"""What a box says, as events of the run. A box is hostile input: everything is checked here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.core.printable import printable
from orchestrator.core.run import Attempt, Run, Seal
from orchestrator.core.signatures import classify
from orchestrator.core.signatures.errors import Ending, diagnose
from orchestrator.core.signatures.faults import Kind, Reaction
from remote.contract import ContractError, Fact, check_name, pushed_uri

Told = tuple[str, dict[str, Any]]

_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_MAX_INT = 2**62
_KERNEL = re.compile("oom_kill|Out of memory: Killed process")


def to_event(run: Run, fact: Fact) -> Told | None:
    """The event that a fact stands for, or None when it changes nothing.

    Raises ContractError when the box says what no honest agent says.
    """
    reader = _READERS.get(fact.kind)
    told = reader(run, fact) if reader else None
    return (told[0], {key: _shown(value) for key, value in told[1].items()}) if told else None


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _exited(run: Run, fact: Fact) -> Told | None:
    attempt = _attempt_of(run, fact)
    if attempt is None or not attempt.live:
        return None
    rc = _integer(fact.data, "rc", low=-255)
    tail = str(fact.data.get("tail", ""))[-4096:]
    why, message = classify(rc, tail)
    asked = (run.outcome is not None or attempt.stopping_at is not None) and rc != 0
    data = {
        "attempt": attempt.number,
        "rc": rc,
        "why": "stopped" if asked else why,
        "message": message,
    }
    if rc != 0 and not asked:
        data |= _diagnosed(run, rc, tail, oom_killed=fact.data.get("oom_killed") is True)
    return "attempt.exited", data


def _diagnosed(run: Run, rc: int, tail: str, *, oom_killed: bool) -> dict[str, str]:
    """The class of the error, and what is done about it. That a process was killed the shell tells
    of anybody's signal: only the kernel's word makes it a lack of memory."""
    earlier = tuple(Kind(each.kind) for each in run.phase_attempts if each.kind in set(Kind))
    found = diagnose(Ending(rc, tail, oom_killed=oom_killed, earlier=earlier))
    kind, reaction, advice = found.kind, found.reaction, found.advice
    if kind is Kind.HOST_OOM and not oom_killed and not _KERNEL.search(found.line):
        kind, reaction = Kind.KILLED, Reaction.RETRY_IN_PLACE
        advice = "a signal from outside ended it, or the machine's memory was full"
    return {"kind": kind, "reaction": reaction, "advice": advice}


def _settled(run: Run, fact: Fact) -> Told | None:
    attempt = _attempt_of(run, fact)
    if attempt is None or attempt.settled:
        return None
    return "attempt.settled", {"attempt": attempt.number}


def _sealed(run: Run, fact: Fact) -> Told | None:
    data = fact.data
    digest = str(data.get("digest"))
    if not _DIGEST.match(digest):
        raise ContractError("a sealed checkpoint without a SHA-256 digest")
    name, generation = check_name(str(data.get("name"))), _integer(data, "generation", low=1)
    number = _integer(data, "attempt", low=1)
    for seal in run.seals:
        if _is_of(seal, fact.instance, name, digest) and _are_of_one_phase(run, seal, number):
            return None
    event = {
        "instance": fact.instance,
        "attempt": number,
        "name": name,
        "generation": generation,
        "step": _optional(data, "step"),
        "max_steps": _optional(data, "max_steps"),
        "size_bytes": _integer(data, "size_bytes"),
        "digest": digest,
        "final": data.get("final") is True,
    }
    if data.get("resumes") is False:
        event["resumes"] = False
    return "checkpoint.sealed", event


def _pushed(run: Run, fact: Fact) -> Told | None:
    """Only what a box sealed can be pushed, and only to the one place that we look at."""
    data = fact.data
    name, generation = check_name(str(data.get("name"))), _integer(data, "generation", low=1)
    digest = str(data.get("digest"))
    if not any(_is_of(seal, fact.instance, name, digest) for seal in run.seals):
        raise ContractError(f"{name} was pushed, and was never sealed")
    if not run.also or data.get("uri") != pushed_uri(run.also, run.id, name, digest):
        raise ContractError(f"{name} was pushed to another place than the plan's")
    if digest in run.pushed:
        return None
    event = {"instance": fact.instance, "name": name, "generation": generation}
    return "checkpoint.pushed", {**event, "digest": digest, "uri": data["uri"]}


def _is_of(seal: Seal, instance: str, name: str, digest: str) -> bool:
    return (seal.instance, seal.name, seal.digest) == (instance, name, digest)


def _are_of_one_phase(run: Run, seal: Seal, number: int) -> bool:
    """What a later phase seals is its own, be it the same to the last byte."""
    phases = {each.number: each.phase for each in run.attempts}
    return phases.get(seal.attempt) == phases.get(number)


def _push_failed(run: Run, fact: Fact) -> Told | None:
    message = str(fact.data.get("message") or "no reason was told")[:500]
    return "push.failed", {"instance": fact.instance, "message": message}


def _push_gave_up(run: Run, fact: Fact) -> Told | None:
    data, why = fact.data, str(fact.data.get("why") or "no reason was told")[:400]
    name, generation = check_name(str(data.get("name"))), _integer(data, "generation", low=1)
    for seal in run.seals:
        if (seal.instance, seal.name, seal.generation) == (fact.instance, name, generation):
            message = f"{name} is not pushed: {why}"
            told = {"instance": fact.instance, "message": message, "digest": seal.digest}
            return "push.failed", told
    raise ContractError(f"{name} was given up, and was never sealed")


def _deadman(run: Run, fact: Fact) -> Told | None:
    """The dead-man switch acted, or was not let: for a person to read."""
    words = fact.data.get("reason") or fact.data.get("message") or "no reason was told"
    attempt = _integer(fact.data, "attempt", low=1)
    data = {"instance": fact.instance, "attempt": attempt, "reason": str(words)[:500]}
    return fact.kind, data


def _attempt_of(run: Run, fact: Fact) -> Attempt | None:
    number = _integer(fact.data, "attempt", low=1)
    for attempt in run.attempts:
        if attempt.number == number and attempt.instance == fact.instance:
            return attempt
    return None


def _integer(data: Mapping[str, Any], key: str, low: int = 0) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= _MAX_INT:
        raise ContractError(f"{key} is {value!r}")
    return value


def _optional(data: Mapping[str, Any], key: str) -> int | None:
    return None if data.get(key) is None else _integer(data, key)


_READERS = {
    "trainer.exited": _exited,
    "agent.settled": _settled,
    "checkpoint.sealed": _sealed,
    "checkpoint.pushed": _pushed,
    "push.failed": _push_failed,
    "push.gave_up": _push_gave_up,
    "deadman.fired": _deadman,
    "deadman.held": _deadman,
    "deadman.refused": _deadman,
}
