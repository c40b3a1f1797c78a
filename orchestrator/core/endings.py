"""What `decide` does about a trainer that hangs, and about the class of error that one ended of.
Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.core.actions import (
    Action,
    AskApproval,
    Deadlines,
    Dump,
    Halt,
    Resume,
    Seen,
    Wait,
)
from orchestrator.core.holdings import missing_here
from orchestrator.core.loss import is_past
from orchestrator.core.run import Attempt, Instance, Run
from orchestrator.core.signatures.faults import Reaction

if TYPE_CHECKING:  # a command that only reads loads no health rule and no plan
    from orchestrator.core.health.judge import Finding
    from orchestrator.core.plan import Stage

HANG = "hang"
HANG_RULES = frozenset({"M7", "M12"})
ENDING = ("restart", "stop", "ask")
OOM_RULE = "M4"
FATAL = {"oom": "config", "config": "config"}


def dump_due(run: Run, seen: Seen) -> Action | None:
    """A trainer that hangs is taken down in writing before anything is ended for it."""
    attempt = run.attempt
    if run.teardown or attempt is None or not attempt.live or attempt.dumped:
        return None
    if attempt.started_at is None or attempt.stopping_at or not _hangs(run, seen):
        return None
    key = f"dump:{attempt.number}"
    return Wait("the trainer hangs, and is looked at") if key in seen.busy else Dump(attempt.number)


def halt_for_hang(run: Run, attempt: Attempt, seen: Seen) -> Action | None:
    """End it, so that it goes on from its newest checkpoint: that is a crash of its budget."""
    hangs = any(each.action == "restart" for each in _hangs(run, seen))
    return Halt(attempt.number, "hang") if hangs and attempt.dumped else None


def is_of_hang(rules: tuple[str, ...]) -> bool:
    """Whether a person is asked about a trainer that will not save any more."""
    return bool(set(rules) & HANG_RULES)


def is_fatal(attempt: Attempt) -> bool:
    """Whether the same thing would happen again. An attempt on record without a reaction ended
    before there were any."""
    if attempt.pardoned or attempt.stopping_at:
        return False
    if attempt.reaction:
        return attempt.reaction == Reaction.NEVER_BLINDLY
    return attempt.why in FATAL


def is_asked_about(run: Run, stage: Stage) -> bool:
    """Whether a person is asked, or is about to be, what comes after an end that is fatal by
    itself."""
    phase = run.phase
    is_waiting = phase is not None and phase.waiting is not None and phase.waiting.why == "flag"
    return is_waiting or ask_about_end(run, stage) is not None


def ask_about_end(run: Run, stage: Stage) -> AskApproval | None:
    """Its end says that the GPU's memory was full: whether its log was read does not matter."""
    phase, attempt = run.phase, run.attempt
    if phase is None or phase.waiting or attempt is None or attempt.why != "oom":
        return None
    if not stage.asks_oom or not is_fatal(attempt) or OOM_RULE in phase.waived:
        return None
    return AskApproval("flag", crash_words(attempt), (OOM_RULE,))


def leave_host(
    run: Run, attempt: Attempt, instance: Instance, now: datetime, deadlines: Deadlines
) -> Action | None:
    """Give the machine up that an attempt ended of, once what was sealed there is here, or no
    longer comes."""
    if attempt.reaction != Reaction.ANOTHER_HOST or attempt.instance != instance.id:
        return None
    missing, since = missing_here(run), attempt.ended_at or now
    if missing and not is_past(now, since, deadlines.drain_s):
        return Wait(f"{len(missing)} checkpoints on their way here, before their machine is left")
    return Resume(instance.id, f"{attempt.kind}: {attempt.message}")


def crash_words(attempt: Attempt) -> str:
    if attempt.stopping_for == HANG:
        return f"the trainer hung and was ended ({attempt.dumped})"
    advice = f"; {attempt.advice}" if attempt.advice else ""
    return f"the trainer ended with {attempt.rc} ({attempt.why}): {attempt.message}{advice}"


def _hangs(run: Run, seen: Seen) -> list[Finding]:
    waived = run.phase.waived if run.phase else ()
    return [
        each
        for each in seen.flags
        if each.flag == HANG and each.action in ENDING and each.rule not in waived
    ]
