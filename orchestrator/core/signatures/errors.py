"""Why a trainer ended, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from orchestrator.core.signatures.faults import SIGNATURES, Kind, Reaction, Signature, Why

Host = Literal["there", "gone", "unknown"]


@dataclass(frozen=True)
class Ending:
    """All that is known about the end of one attempt.

    `rc` as a shell gives it (128 + n for signal n) or negative. `last_step` and `max_steps` are
    None when nobody told them, `gained` counts the steps of this attempt. `host`: whether the
    provider says that the instance is as it was. `earlier`: the kinds of this run's ends so far."""

    rc: int
    tail: str = ""
    last_step: int | None = None
    max_steps: int | None = None
    gained: int = 0
    checkpoints: int = 0
    final: bool = False
    asked: bool = False
    host: Host = "unknown"
    oom_killed: bool = False
    earlier: tuple[Kind, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """`line` says it best; `rank` is the one that failed first where the launcher tells."""

    kind: Kind
    reaction: Reaction
    line: str
    advice: str
    rank: int | None = None


_REFUSED = re.compile(r"Connection refused|ECONNREFUSED")
_STORE = re.compile(r"c10d|TCPStore")
_NEAR = 3
_COMMAND_RC = {2: "usage", 126: "not executable", 127: "command not found"}
_ERROR_LINE = re.compile(r"^(?:\[rank\d+\]: ?)?[\w.]*(Error|Exception|Interrupt)\b.*")
_TERMINATED, _KILLED = frozenset({143, -15}), frozenset({137, -9})
_ROOT_CAUSE = "Root Cause (first observed failure)"
_ROOT_RANK = re.compile(r"^\s*rank\s*: (\d{1,6})")
_ROOT_EXIT = re.compile(r"^\s*exitcode\s*: (-?\d{1,4})")
_LONGEST = 300


def classify(rc: int, tail: str) -> tuple[Why, str]:
    """Why a trainer that ended with `rc` ended, and the line that says it best.

    "oom" and "config" are never retried blindly: the same thing would happen again.
    """
    if rc == 0:
        return "ok", ""
    lines = _lines(tail)
    found = _find(lines)
    if found:
        return found[0].why, found[1]
    if rc in _COMMAND_RC:
        return "config", (lines[-1] if lines else _COMMAND_RC[rc])[:_LONGEST]
    return "crash", _best_line(lines, rc)


def diagnose(ending: Ending) -> Diagnosis:
    """The class of an end and its reaction: an exit code alone proves neither success nor failure.

    Weights that are final at the last step make it done whatever came after; an exit code of 0
    without a step is a failure."""
    lines = _lines(ending.tail)
    if ending.asked:
        return Diagnosis(Kind.STOPPED, Reaction.DONE, "", "it was asked to stop")
    if ending.rc == 0:
        return _ended_well(ending)
    rank = _root_cause(lines)[0]
    found = _find(lines)
    if ending.final and _reached(ending):
        line = found[1] if found else _best_line(lines, ending.rc)
        return Diagnosis(Kind.POST_TRAIN_ERROR, Reaction.DONE, line, "the weights are whole", rank)
    if found:
        return _known(found[0], found[1], ending, rank)
    return _unknown(ending, lines, rank)


def seen_in(text: str) -> Kind | None:
    """The class of error that one line names, while the trainer still runs."""
    line = text.strip()
    return next((each.kind for each in SIGNATURES if _names(each, line)), None)


def _ended_well(ending: Ending) -> Diagnosis:
    if ending.final or _reached(ending):
        return Diagnosis(Kind.OK, Reaction.DONE, "", "")
    if ending.gained == 0 and ending.checkpoints == 0:
        advice = "exit code 0, no step and no checkpoint: is resume at or past the last step?"
        return Diagnosis(Kind.NO_OP, Reaction.NEVER_BLINDLY, "", advice)
    if ending.last_step is not None and ending.max_steps is not None:
        advice = f"exit code 0 at step {ending.last_step} of {ending.max_steps}"
        return Diagnosis(Kind.ENDED_EARLY, Reaction.RETRY_IN_PLACE, "", advice)
    return Diagnosis(Kind.OK, Reaction.DONE, "", "")


def _known(signature: Signature, line: str, ending: Ending, rank: int | None) -> Diagnosis:
    reaction = signature.reaction
    if signature.kind is Kind.NCCL and Kind.NCCL in ending.earlier:
        reaction = Reaction.ANOTHER_HOST
    return Diagnosis(signature.kind, reaction, line, signature.advice, rank)


def _unknown(ending: Ending, lines: list[str], rank: int | None) -> Diagnosis:
    """No string of the table: the exit code, the kernel and the provider have to tell."""
    rc = ending.rc
    codes = {rc, _root_cause(lines)[1]}
    line = _best_line(lines, rc)
    if ending.oom_killed and codes & _KILLED:
        memory = next(each for each in SIGNATURES if each.kind is Kind.HOST_OOM)
        return Diagnosis(memory.kind, memory.reaction, line, memory.advice, rank)
    if ending.host == "gone":
        advice = "its machine was taken: resume elsewhere"
        return Diagnosis(Kind.PREEMPTION, Reaction.ANOTHER_HOST, line, advice, rank)
    if rc in _COMMAND_RC:
        line = (lines[-1] if lines else _COMMAND_RC[rc])[:_LONGEST]
        return Diagnosis(Kind.CONFIG, Reaction.NEVER_BLINDLY, line, "correct the command", rank)
    if codes & (_KILLED | _TERMINATED):
        advice = "a signal from outside ended it, and its machine is still there"
        return Diagnosis(Kind.KILLED, Reaction.RETRY_IN_PLACE, line, advice, rank)
    return Diagnosis(Kind.CRASH, Reaction.RETRY_IN_PLACE, line, "restart from a checkpoint", rank)


def _reached(ending: Ending) -> bool:
    last, most = ending.last_step, ending.max_steps
    return last is not None and most is not None and last >= most


def _lines(tail: str) -> list[str]:
    return [line.strip() for line in tail.replace("\r", "\n").split("\n") if line.strip()]


def _find(lines: list[str]) -> tuple[Signature, str] | None:
    for signature in SIGNATURES:
        line = next((line for line in lines if _fits(signature, line)), None)
        if line is None and signature.kind is Kind.NCCL:
            line = _refused_by_store(lines)
        if line:
            return signature, line[:_LONGEST]
    return None


def _fits(signature: Signature, line: str) -> bool:
    return _names(signature, line) or any(each in line for each in signature.last_words)


def _names(signature: Signature, line: str) -> bool:
    if any(each in line for each in signature.strings):
        return True
    return signature.pattern is not None and bool(signature.pattern.search(line))


def _refused_by_store(lines: list[str]) -> str | None:
    """A refused connection is NCCL's affair only beside the rendezvous store."""
    for index, line in enumerate(lines):
        near = lines[max(0, index - _NEAR) : index + _NEAR + 1]
        if _REFUSED.search(line) and any(_STORE.search(each) for each in near):
            return line
    return None


def _root_cause(lines: list[str]) -> tuple[int | None, int | None]:
    """Rank and exit code of torchrun's root-cause block."""
    at = next((n for n, line in enumerate(lines) if _ROOT_CAUSE in line), None)
    if at is None:
        return None, None
    block = lines[at : at + 10]
    return _first(_ROOT_RANK, block), _first(_ROOT_EXIT, block)


def _first(pattern: re.Pattern[str], lines: list[str]) -> int | None:
    return next((int(found[1]) for line in lines if (found := pattern.search(line))), None)


def _best_line(lines: list[str], rc: int) -> str:
    errors = [line for line in lines if _ERROR_LINE.match(line) and "ChildFailedError" not in line]
    return (errors or lines or [f"exit code {rc}"])[-1][:_LONGEST]
