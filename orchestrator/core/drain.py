"""How a run ends: its trainer saves, what was sealed comes home, and what was rented is given back.
A drain has its limits: the box may hold the only copy, and it bills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator.core.actions import (
    Absent,
    Action,
    Deadlines,
    Drained,
    Finish,
    Seen,
    Start,
    Stop,
    Terminate,
    Wait,
)
from orchestrator.core.budget import budget_left_s, over_budget
from orchestrator.core.holdings import (
    is_stored,
    missing_here,
    never_came,
    unlooked,
    unpushed,
    untold,
)
from orchestrator.core.loss import is_past
from orchestrator.core.phases import is_settled
from orchestrator.core.run import Attempt, Instance, Run, Seal, is_pushed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def end(run: Run, seen: Seen, now: datetime, deadlines: Deadlines) -> Action:
    """Stop, bring everything home, end everything rented, and only then finish."""
    if not run.drained:
        return _drain(run, seen, now, deadlines)
    for instance in run.still_billing:
        if not instance.terminating:
            return terminate(instance, seen)
    if run.still_billing:
        return Wait("the provider still lists what the run rented")
    return Finish()


def stop_trainer(
    instance: Instance,
    attempt: Attempt,
    since: datetime,
    grace_s: float,
    seen: Seen,
    now: datetime,
) -> Action:
    """Let the trainer save and the agent seal what it left."""
    if seen.agent_alive is False:
        again = Start(instance.id, attempt.resume, attempt.number)
        return unless_busy(f"start:{attempt.number}", seen, again)
    if attempt.live:
        stop = Stop(attempt.number, "KILL" if is_past(now, since, grace_s) else "TERM")
        return unless_busy(f"stop:{attempt.number}:{stop.signal}", seen, stop)
    return Wait("the box seals what the trainer left")


def terminate(instance: Instance, seen: Seen) -> Action:
    """End an instance; one whose create was never answered first has to show itself or not."""
    if instance.provider_id is not None:
        return Terminate(instance.id)
    if f"create:{instance.id}" in seen.busy:
        return Wait("the provider has not answered the create")
    if seen.presence.get(instance.id, "unknown") == "gone":
        return Absent(instance.id)
    return Wait("the provider is being listed")


def is_looked_for(run: Run, now: datetime, deadlines: Deadlines) -> bool:
    """Whether to wait for what a lost box may have pushed while nobody listened: to resume from
    something older would cost more than the moment that it takes."""
    return any(
        each.lost_at and not is_past(now, each.lost_at, deadlines.look_s) for each in unlooked(run)
    )


def unless_busy(key: str, seen: Seen, action: Action) -> Action:
    if key in seen.busy:
        return Wait(f"{key} is under way")
    if key in seen.waiting:
        return Wait(f"{key} failed and is tried again soon")
    return action


def why_given_up(run: Run, seen: Seen, now: datetime, deadlines: Deadlines) -> str:
    """Why what is missing is waited for no longer; empty while it is.

    Nothing that moves for `drain_s`, unless a disk here keeps it from moving or nobody was there
    to move it; the budget, once the trainer had its time to save; and without one a day, or three
    when what moves will be here by then."""
    began = run.draining_at or now
    waiting_since = max(began, run.paused.at) if run.paused else began
    moments = (began, seen.moving_at, run.resumed_at, seen.watching_since)
    stalled_since = max(each for each in moments if each)
    if run.paused is None and is_past(now, stalled_since, deadlines.drain_s):
        return f"nothing moved for {deadlines.drain_s / 3600:g}h"
    if has_budget(run):
        over = over_budget(run, 0.0, now)
        return over if over and is_past(now, began, deadlines.stop_grace_s) else ""
    if not is_past(now, waiting_since, deadlines.drain_most_s):
        return ""
    what = f"the mirror took nothing ({run.paused.reason})" if run.paused else "it is too slow"
    if run.paused is None and _will_be_here(began, seen, now, deadlines):
        return ""
    return f"{deadlines.drain_most_s / 3600:g}h are over without a budget that says more: {what}"


def drain_until(run: Run, now: datetime, deadlines: Deadlines) -> datetime:
    """When a drain that begins now is over at the latest, as far as it is known."""
    left_s = budget_left_s(run, now)
    if left_s is None:
        return now + timedelta(seconds=deadlines.drain_most_s)
    return now + timedelta(seconds=max(left_s, deadlines.stop_grace_s))


def has_budget(run: Run) -> bool:
    return run.limits.budget_usd is not None or run.limits.budget_hours is not None


def _will_be_here(began: datetime, seen: Seen, now: datetime, deadlines: Deadlines) -> bool:
    needed_s = (now - began).total_seconds() + seen.expected_drain_s
    return needed_s <= 3 * deadlines.drain_most_s


def _drain(run: Run, seen: Seen, now: datetime, deadlines: Deadlines) -> Action:
    instance, attempt = run.instance, run.attempt
    missing = missing_here(run)
    given_up = why_given_up(run, seen, now, deadlines)
    if given_up:
        return Drained(never_came(run), given_up)
    if is_looked_for(run, now, deadlines):
        return Wait("S3 is asked what the lost box left there")
    if instance is None or attempt is None or attempt.instance != instance.id:
        stored = tuple(seal for seal in missing if is_stored(run, seal))
        return _come_home(run, stored, (), (), seen, now, deadlines)
    if f"start:{attempt.number}" in seen.busy:
        return Wait("the trainer is being started")
    if attempt.started_at and not attempt.lost and not is_settled(attempt, now, deadlines):
        since = run.draining_at or now
        return stop_trainer(instance, attempt, since, deadlines.stop_grace_s, seen, now)
    to_tell = untold(run, instance.id)
    return _come_home(run, missing, unpushed(run), to_tell, seen, now, deadlines)


def _come_home(
    run: Run,
    missing: tuple[Seal, ...],
    to_push: tuple[Seal, ...],
    to_tell: tuple[Seal, ...],
    seen: Seen,
    now: datetime,
    deadlines: Deadlines,
) -> Action:
    """Wait for what is on its way, and until what came was found intact here: that is when its
    box is told. What is held twice already, here, in S3 or on the box, is not worth more than
    `push_s` without a byte of progress."""
    if any(not is_pushed(run, seal) for seal in missing):
        return Wait(f"{len(missing)} checkpoints on their way here")
    if to_tell and (run.paused or "ack:" in seen.busy):
        return Wait(f"{len(to_tell)} checkpoints are looked at here before their box may go")
    sealed_at = max((seal.sealed_at for seal in run.seals), default=None)
    moved_at = [run.draining_at, seen.moving_at, run.pushed_at, sealed_at]
    since = max(each for each in (*moved_at, _EPOCH) if each)
    waiting = missing or to_push or to_tell
    if waiting and not is_past(now, since, deadlines.push_s):
        where = "here" if missing else "to S3" if to_push else "off the box"
        return Wait(f"{len(waiting)} checkpoints on their way {where}")
    return Drained(never_came(run))
