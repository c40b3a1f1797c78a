"""What `decide` does where one phase stops and before the next begins: bring home, judge, ask, and
go on with the same box or another. Pure."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.actions import (
    Action,
    Advance,
    AskApproval,
    Begin,
    Deadlines,
    Drain,
    Extend,
    Halt,
    Reached,
    Retire,
    Seen,
    Wait,
)
from orchestrator.core.endings import is_of_hang
from orchestrator.core.gate import Decision, GateVerdict, is_expired
from orchestrator.core.holdings import crashes_spent, left_nothing, missing_here, unpushed, untold
from orchestrator.core.loss import is_past
from orchestrator.core.phases import choose_start, has_goal
from orchestrator.core.plan import Stage
from orchestrator.core.run import Attempt, Outcome, Phase, Run

Stages = tuple[Stage, ...]


def begin_first(stages: Stages) -> Begin:
    start = stages[0].start
    return Begin(0, start.given.source if start and start.given else None)


def begin_next(run: Run, phase: Phase, stages: Stages) -> Action:
    """The phase after one that has ended, or this one anew when it is another than was begun."""
    now, after = stages[phase.index], stages[phase.index + 1]
    source = choose_start(run, after.start) if after.start else None
    if after.start and source is None:
        why = f"{after.start.phase} left no checkpoint `{after.start.checkpoint}` for {after.name}"
        return Drain(Outcome("FAILED", why, "incomplete"))
    return Begin(phase.index + 1, source, _kept(run, now, after))


def is_void(phase: Phase, stages: Stages) -> bool:
    """Whether what the plan says of this phase is not what was begun."""
    return phase.key != stages[phase.index].key


def begin_anew(run: Run, phase: Phase, stages: Stages) -> Begin:
    return Begin(phase.index, phase.start, run.instance.id if run.instance else None)


def after_success(
    run: Run,
    phase: Phase,
    stages: Stages,
    reason: str,
    seen: Seen,
    now: datetime,
    deadlines: Deadlines,
) -> Action:
    """The phase has done what it is for: all of it comes home, its gate says GO, and then the next
    one begins or the run has succeeded."""
    stage, last = stages[phase.index], phase.index + 1 == len(stages)
    coming = _come_home(run, seen, now, deadlines)
    if coming:
        return coming
    if phase.waiting and phase.waiting.why == "flag":
        return await_person(run, phase, stage, seen, now, deadlines)
    decision = seen.gate if stage.gated else Decision(GateVerdict.GO, (), key=stage.key)
    if decision is None or is_expired(decision, stage.key):
        return Wait(f"the gate of {phase.name} is being judged")
    if decision.verdict is GateVerdict.GO and last:
        return Drain(Outcome("SUCCEEDED", reason, "done"))
    if decision.verdict is GateVerdict.GO:
        keeps = _kept(run, stage, stages[phase.index + 1])
        leaving = None if keeps else _pushing(run, seen, now, deadlines)
        return leaving or Advance(decision.verdict)
    if phase.waiting:
        return await_person(run, phase, stage, seen, now, deadlines)
    until = decision.until_step
    may_go_on = phase.until_step is not None and until is not None and until > phase.until_step
    if decision.verdict is GateVerdict.INCONCLUSIVE and may_go_on and until:
        return Extend(until)
    return AskApproval("gate", _words(decision))


def refusal(
    run: Run, stages: Stages, seen: Seen, now: datetime, deadlines: Deadlines
) -> Outcome | None:
    """Why a gate, a health rule or a person ends the run."""
    phase = run.phase
    if phase is None:
        return None
    for found in seen.flags:
        if found.action == "stop" and found.rule not in phase.waived:
            said = f"red flag {found.rule}: {found.evidence.words}"
            return Outcome("FAILED", f"{said}. {found.advice}".rstrip(". "), "red_flag")
    waiting = phase.waiting
    if waiting and phase.approved is False:
        by = f" by {phase.approved_by}" if phase.approved_by else ""
        return Outcome("CANCELLED", f"refused{by}: {waiting.reason}", "asked")
    unheard = waiting and phase.approved is None
    if waiting and unheard and is_past(now, waiting.at, deadlines.approve_s):
        days = deadlines.approve_s / 86400
        return Outcome("CANCELLED", f"nobody answered for {days:g} days: {waiting.reason}", "asked")
    gate = seen.gate
    said_no = gate is not None and gate.verdict is GateVerdict.NO_GO and not phase.ended
    if gate and said_no and not is_expired(gate, stages[phase.index].key):
        return Outcome("FAILED", f"{phase.name} is NO-GO: {_words(gate)}", "gate")
    if phase.start and phase.start.digest in run.unusable:
        why = f"{phase.start.name}, which {phase.name} starts from, is not what it was"
        return Outcome("FAILED", why, "integrity")
    return None


def question(phase: Phase, seen: Seen) -> AskApproval | None:
    """What a health rule wants to be asked, and was not yet."""
    asking = [f for f in seen.flags if f.action == "ask" and f.rule not in phase.waived]
    if phase.waiting or not asking:
        return None
    words = "; ".join(f"{each.rule}: {each.evidence.words}" for each in asking)
    return AskApproval("flag", words, tuple(each.rule for each in asking))


def stop_due(
    run: Run, stage: Stage, attempt: Attempt, seen: Seen, now: datetime, deadlines: Deadlines
) -> Action | None:
    """Why the trainer that runs is stopped before its end, or what is waited for before it is.

    One that saves when it is told to stop is told so at its step; for any other one the next
    checkpoint is waited for, within a deadline."""
    phase = run.phase
    if phase is None:
        return None
    if phase.waiting:
        return _stop_to_ask(run, phase, stage, attempt, now, deadlines)
    until = phase.until_step
    if until is None:
        return None
    if has_goal(run):
        return Halt(attempt.number, "steps", until)
    if (seen.step or 0) < until:
        return None
    if stage.saves_on_stop:
        return Halt(attempt.number, "steps", until)
    if phase.reached_at is None:
        return Reached(seen.step or until)
    if is_past(now, phase.reached_at, deadlines.save_s):
        return Halt(attempt.number, "steps", until)
    return Wait(f"step {until} is reached: the next checkpoint is waited for")


def _stop_to_ask(
    run: Run, phase: Phase, stage: Stage, attempt: Attempt, now: datetime, deadlines: Deadlines
) -> Action:
    asked_at = phase.waiting.at if phase.waiting else now
    saved = any(s.attempt == attempt.number and s.sealed_at >= asked_at for s in run.seals)
    hangs = is_of_hang(phase.waiting.rules if phase.waiting else ())
    if hangs or saved or stage.saves_on_stop or is_past(now, asked_at, deadlines.save_s):
        return Halt(attempt.number, "flag")
    return Wait("a person is asked: the next checkpoint is waited for, then the trainer is stopped")


def stopped_short(run: Run, stage: Stage, attempt: Attempt) -> Outcome | None:
    """How the run ends when a trainer was stopped at a step and left no checkpoint of it; None when
    it goes on, after an extension or a person's yes too. One that saves when it is told to has
    crashed meanwhile: it is picked up again like any other."""
    if not left_nothing(run, attempt):
        return None
    why = f"step {attempt.stopping_step} was reached, and no checkpoint at or past it came"
    spent = crashes_spent(run)
    if stage.saves_on_stop and spent <= run.limits.crash:
        return None
    if stage.saves_on_stop:
        why += f"; {spent} crashes spent of {run.limits.crash}"
    return Outcome("FAILED", why, "incomplete")


def await_person(
    run: Run, phase: Phase, stage: Stage, seen: Seen, now: datetime, deadlines: Deadlines
) -> Action:
    """Keep the box for `hold_s`, in case that the answer comes soon, and then give it back."""
    coming = _come_home(run, seen, now, deadlines)
    if coming:
        return coming
    waiting, instance, attempt = phase.waiting, run.instance, run.attempt
    reason = waiting.reason if waiting else ""
    if instance is None:
        bills = ", and what was rented is being ended" if run.still_billing else ""
        return Wait(f"a person is asked{bills}: {reason}")
    since = max(each for each in (waiting and waiting.at, attempt and attempt.ended_at) if each)
    if is_past(now, since, stage.hold_s):
        return _pushing(run, seen, now, deadlines) or Retire(
            instance.id, f"nobody answered for {stage.hold_s / 60:g} min"
        )
    return Wait(f"a person is asked: {reason}")


def _come_home(run: Run, seen: Seen, now: datetime, deadlines: Deadlines) -> Action | None:
    """Wait until all that was sealed is here and was found intact; end the run when that stands
    still: what is not here cannot be started from."""
    missing = missing_here(run)
    to_tell = untold(run, run.instance.id) if run.instance else ()
    if not missing and not to_tell:
        return None
    attempt = run.attempt
    moments = (
        attempt.ended_at if attempt else None,
        seen.moving_at,
        run.resumed_at,
        seen.watching_since,
        run.paused.at if run.paused else None,
    )
    since = max((each for each in moments if each), default=now)
    limit_s = deadlines.drain_most_s if run.paused else deadlines.drain_s
    if is_past(now, since, limit_s):
        names = ", ".join(seal.name for seal in missing or to_tell)
        why = f"{names} did not come here, and nothing moved for {limit_s / 3600:g}h"
        return Drain(Outcome("FAILED", why, "integrity"))
    if missing:
        return Wait(f"{len(missing)} checkpoints on their way here")
    return Wait(f"{len(to_tell)} checkpoints are looked at here")


def _pushing(run: Run, seen: Seen, now: datetime, deadlines: Deadlines) -> Wait | None:
    """Wait for what the box, which is to go, has still to push to S3. All of it is here: that is
    not worth more than `push_s` without a byte of progress."""
    waiting = unpushed(run)
    ended_at = run.attempt.ended_at if run.attempt else None
    moments = (ended_at, seen.moving_at, seen.watching_since, run.pushed_at)
    since = max((each for each in moments if each), default=now)
    if not waiting or is_past(now, since, deadlines.push_s):
        return None
    return Wait(f"{len(waiting)} checkpoints on their way to S3 before their box may go")


def _kept(run: Run, now: Stage, after: Stage) -> str | None:
    """The box, when the next phase might have rented the same."""
    instance = run.instance
    if instance is None or not instance.prepared:
        return None
    same = any((o.provider, o.id) == (instance.provider, instance.offer) for o in after.offers)
    fits = same and after.rental == now.rental and after.disk_gb <= now.disk_gb
    return instance.id if fits else None


def _words(decision: Decision) -> str:
    open_ones = [each for each in decision.reasons if each.verdict != "pass"] or decision.reasons
    return "; ".join(f"{each.part}: {each.words}" for each in open_ones[:4])
