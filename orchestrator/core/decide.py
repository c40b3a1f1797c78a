"""The brain: what to do next, from the run, one observation and the time. Pure.

It never leaves a terminal state. It reaches one whenever the provider keeps answering and
observations stop changing: every wait below has a deadline.
"""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.core.actions import (
    Absent,
    Action,
    Create,
    Deadlines,
    Drain,
    Drained,
    Finish,
    Gone,
    LookAgain,
    Prepare,
    Restarted,
    Resume,
    Seen,
    Start,
    Stop,
    Terminate,
    Wait,
    Warn,
)
from orchestrator.core.budget import budget_share, over_budget
from orchestrator.core.drain import why_given_up
from orchestrator.core.holdings import (
    crashes_spent,
    host_losses,
    is_stored,
    missing_here,
    never_came,
    newest_source,
    unlooked,
    unpushed,
    untold,
)
from orchestrator.core.loss import is_past, why_lost
from orchestrator.core.offer import Offer
from orchestrator.core.run import (
    Attempt,
    Instance,
    Outcome,
    Run,
    Seal,
    final_is_safe,
    final_of,
    is_pushed,
)
from orchestrator.core.search import ended_search, free_offers, next_round_at

WARN_AT = 0.8
FATAL = {"oom": "config", "config": "config"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decide(
    run: Run,
    offers: tuple[Offer, ...],
    seen: Seen,
    now: datetime,
    deadlines: Deadlines,
) -> Action:
    """The next action for `run`; the caller records it and looks again."""
    if run.terminal:
        return Wait("the run has ended")
    for instance in run.instances:
        action = _care_for(run, instance, seen, now, deadlines)
        if action:
            return action
    if run.outcome is None:
        outcome = _ending(run, offers, seen, now, deadlines)
        if outcome:
            return Drain(outcome)
        share = 0.0 if run.warned else budget_share(run, now)
        return Warn(share) if share >= WARN_AT else _advance(run, offers, seen, now, deadlines)
    return _end(run, seen, now, deadlines)


def _care_for(
    run: Run, instance: Instance, seen: Seen, now: datetime, deadlines: Deadlines
) -> Action | None:
    """What one instance needs, whatever the run is doing: to be given up, ended, or proven gone."""
    if instance.gone_at or instance.refused:
        return None
    presence = seen.presence.get(instance.id, "unknown")
    key = f"terminate:{instance.id}"
    if instance.terminating:
        if presence == "gone" and instance.id in seen.ended:
            return Gone(instance.id)
        return None if key in seen.busy | seen.waiting else Terminate(instance.id)
    if instance.lost:
        return Terminate(instance.id)
    reason = why_lost(run, instance, seen, now, deadlines)
    if reason:
        return Resume(instance.id, reason)
    return Restarted(instance.id) if presence in ("restarted", "wiped") else None


def _ending(
    run: Run, offers: tuple[Offer, ...], seen: Seen, now: datetime, deadlines: Deadlines
) -> Outcome | None:
    """The outcome, once something has ended the run."""
    if run.teardown:
        return Outcome("CANCELLED", f"teardown: {run.teardown}", "asked")
    over = over_budget(run, seen.expected_drain_s, now)
    if over:
        return Outcome("FAILED", over, "budget")
    losses = host_losses(run)
    if losses > run.limits.host_loss:
        return Outcome(
            "FAILED",
            f"{losses} instances were lost or restarted, {run.limits.host_loss} allowed",
            "host",
        )
    nothing = ended_search(run, offers, now, deadlines.capacity_s)
    if nothing:
        return nothing
    for key, message in seen.gave_up.items():
        return Outcome("FAILED", f"{key.split(':')[0]}: {message}", "config")
    return _after_exit(run, now, deadlines)


def _after_exit(run: Run, now: datetime, deadlines: Deadlines) -> Outcome | None:
    attempt = run.attempt
    if attempt and attempt.lost and final_is_safe(run) and _reached_the_end(run, attempt):
        return Outcome("SUCCEEDED", "trained to the end before its box was lost", "done")
    if attempt is None or attempt.live or attempt.lost or not _is_settled(attempt, now, deadlines):
        return None
    final = final_of(run, attempt)
    if attempt.rc == 0:
        if final and (final.step is None or final.step >= (final.max_steps or 0)):
            return Outcome("SUCCEEDED", "trained to the end", "done")
        what = "before the last step" if final else "without final weights"
        return Outcome("FAILED", f"the trainer ended with 0 {what}", "incomplete")
    if final and _reached_the_end(run, attempt):
        how = "the box was lost before it ended" if attempt.rc is None else f"exit {attempt.rc}"
        reason = f"complete with an error after training ({how})"
        return Outcome("SUCCEEDED", reason, "done")
    if attempt.why in FATAL:
        return Outcome("FAILED", _crash_words(attempt), FATAL[attempt.why])
    spent = crashes_spent(run)
    if spent > run.limits.crash:
        why = (
            f"; {spent} crashes spent of {run.limits.crash} (one that gained no checkpoint is two)"
        )
        return Outcome("FAILED", _crash_words(attempt) + why, "crash")
    return None


def _is_settled(attempt: Attempt, now: datetime, deadlines: Deadlines) -> bool:
    """Whether the box has sealed all that the attempt left, or had its time to."""
    ended_at = attempt.ended_at
    return attempt.settled or (ended_at is not None and is_past(now, ended_at, deadlines.settle_s))


def _reached_the_end(run: Run, attempt: Attempt) -> bool:
    """Whether something that this attempt left says that it made its last step."""
    return any(
        seal.step is not None and seal.max_steps is not None and seal.step >= seal.max_steps
        for seal in run.seals
        if seal.attempt == attempt.number
    )


def _crash_words(attempt: Attempt) -> str:
    return f"the trainer ended with {attempt.rc} ({attempt.why}): {attempt.message}"


def _advance(
    run: Run, offers: tuple[Offer, ...], seen: Seen, now: datetime, deadlines: Deadlines
) -> Action:
    """The next step towards a trainer that runs."""
    if _is_looked_for(run, now, deadlines):
        return Wait("S3 is asked what the lost box left there")
    instance = run.instance
    if instance is None:
        # Two instances of one run never bill at once: the lost one first has to be proven gone.
        billing = run.still_billing
        return Wait(f"{billing[0].id} is being ended") if billing else _rent(run, offers, seen, now)
    if instance.provider_id is None:
        return _unanswered(instance, seen)
    if instance.state == "PENDING":
        return Wait("the instance boots")
    if not instance.prepared:
        return _unless_busy(f"prepare:{instance.id}", seen, Prepare(instance.id))
    return _train(run, instance, seen, now, deadlines)


def _rent(run: Run, offers: tuple[Offer, ...], seen: Seen, now: datetime) -> Action:
    again_at = run.search.again_at
    if again_at and now < again_at:
        return Wait(f"no offer could be rented; all are asked again at {again_at:%H:%M:%S} UTC")
    free = free_offers(run, offers)
    if not free:
        return LookAgain(next_round_at(run, now))
    ready = [offer for offer in free if f"rent:{offer.provider}" not in seen.waiting]
    return Create(ready[0]) if ready else Wait("the providers ask for patience")


def _unanswered(instance: Instance, seen: Seen) -> Action:
    """A create whose answer is not on record is never sent again: the list shows that it rented,
    or proves that it did not, and then another instance is asked for."""
    if f"create:{instance.id}" in seen.busy:
        return Wait("the provider has not answered")
    if seen.presence.get(instance.id, "unknown") != "gone":
        return Wait("the provider is being listed")
    return Absent(instance.id)


def _train(run: Run, instance: Instance, seen: Seen, now: datetime, deadlines: Deadlines) -> Action:
    attempt = run.attempt
    if attempt is None or attempt.lost or attempt.instance != instance.id:
        return Start(instance.id, newest_source(run, instance.id))
    again = Start(instance.id, attempt.resume, attempt.number)
    settled = _is_settled(attempt, now, deadlines)
    if attempt.started_at is None or (seen.agent_alive is False and not settled):
        return _unless_busy(f"start:{attempt.number}", seen, again)
    if attempt.live:
        return Wait("the trainer runs")
    if not settled:
        return Wait("the box seals what the trainer left")
    return Start(instance.id, newest_source(run, instance.id))


def _end(run: Run, seen: Seen, now: datetime, deadlines: Deadlines) -> Action:
    """Stop, bring everything home, end everything rented, and only then finish."""
    if not run.drained:
        return _drain(run, seen, now, deadlines)
    for instance in run.still_billing:
        if not instance.terminating:
            return _terminate(instance, seen)
    if run.still_billing:
        return Wait("the provider still lists what the run rented")
    return Finish()


def _drain(run: Run, seen: Seen, now: datetime, deadlines: Deadlines) -> Action:
    instance, attempt = run.instance, run.attempt
    missing = missing_here(run)
    given_up = why_given_up(run, seen, now, deadlines)
    if given_up:
        return Drained(never_came(run), given_up)
    if _is_looked_for(run, now, deadlines):
        return Wait("S3 is asked what the lost box left there")
    if instance is None or attempt is None or attempt.instance != instance.id:
        stored = tuple(seal for seal in missing if is_stored(run, seal))
        return _come_home(run, stored, (), (), seen, now, deadlines)
    if f"start:{attempt.number}" in seen.busy:
        return Wait("the trainer is being started")
    if attempt.started_at and not attempt.lost and not _is_settled(attempt, now, deadlines):
        return _stop(instance, attempt, run.draining_at or now, seen, now, deadlines)
    to_tell = untold(run, instance.id)
    return _come_home(run, missing, unpushed(run), to_tell, seen, now, deadlines)


def _is_looked_for(run: Run, now: datetime, deadlines: Deadlines) -> bool:
    """Whether to wait for what a lost box may have pushed while nobody listened: to resume from
    something older would cost more than the moment that it takes."""
    return any(
        each.lost_at and not is_past(now, each.lost_at, deadlines.look_s) for each in unlooked(run)
    )


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


def _stop(
    instance: Instance,
    attempt: Attempt,
    since: datetime,
    seen: Seen,
    now: datetime,
    deadlines: Deadlines,
) -> Action:
    """Let the trainer save and the agent seal what it left."""
    if seen.agent_alive is False:
        again = Start(instance.id, attempt.resume, attempt.number)
        return _unless_busy(f"start:{attempt.number}", seen, again)
    if attempt.live:
        late = is_past(now, since, deadlines.stop_grace_s)
        stop = Stop(attempt.number, "KILL" if late else "TERM")
        return _unless_busy(f"stop:{attempt.number}:{stop.signal}", seen, stop)
    return Wait("the box seals what the trainer left")


def _terminate(instance: Instance, seen: Seen) -> Action:
    """End an instance; one whose create was never answered first has to show itself or not."""
    if instance.provider_id is not None:
        return Terminate(instance.id)
    if f"create:{instance.id}" in seen.busy:
        return Wait("the provider has not answered the create")
    if seen.presence.get(instance.id, "unknown") == "gone":
        return Absent(instance.id)
    return Wait("the provider is being listed")


def _unless_busy(key: str, seen: Seen, action: Action) -> Action:
    if key in seen.busy:
        return Wait(f"{key} is under way")
    if key in seen.waiting:
        return Wait(f"{key} failed and is tried again soon")
    return action
