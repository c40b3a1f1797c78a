"""The brain: what to do next, from the run, one observation and the time. Pure.

It never leaves a terminal state. It reaches one whenever the provider keeps answering and
observations stop changing: every wait below has a deadline.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.actions import (
    Absent,
    Action,
    Create,
    Deadlines,
    Drain,
    Gone,
    LookAgain,
    Prepare,
    Restarted,
    Resume,
    Seen,
    Start,
    Terminate,
    Wait,
    Warn,
)
from orchestrator.core.between import (
    after_success,
    await_person,
    begin_anew,
    begin_first,
    begin_next,
    is_void,
    question,
    refusal,
    stop_due,
    stopped_short,
)
from orchestrator.core.budget import budget_share, over_budget
from orchestrator.core.drain import end, is_looked_for, stop_trainer, terminate, unless_busy
from orchestrator.core.endings import (
    HANG,
    ask_about_end,
    crash_words,
    dump_due,
    halt_for_hang,
    is_asked_about,
    is_fatal,
    leave_host,
)
from orchestrator.core.holdings import (
    crashes_spent,
    host_losses,
    newest_source,
)
from orchestrator.core.loss import why_lost
from orchestrator.core.offer import Offer
from orchestrator.core.phases import is_settled, success_of
from orchestrator.core.plan import Stage
from orchestrator.core.run import (
    Instance,
    Outcome,
    Phase,
    Run,
    final_of,
)
from orchestrator.core.search import ended_search, free_offers, next_round_at

WARN_AT = 0.8


def decide(
    run: Run,
    stages: tuple[Stage, ...],
    seen: Seen,
    now: datetime,
    deadlines: Deadlines,
) -> Action:
    """The next action for `run`, whose plan has these phases; the caller records it and looks
    again."""
    if run.terminal:
        return Wait("the run has ended")
    for instance in run.instances:
        action = _care_for(run, instance, seen, now, deadlines)
        if action:
            return action
    if run.outcome is None:
        dump = dump_due(run, seen)
        if dump:
            return dump
        outcome = _ending(run, stages, seen, now, deadlines)
        if outcome:
            return Drain(outcome)
        share = 0.0 if run.warned else budget_share(run, now)
        return Warn(share) if share >= WARN_AT else _advance(run, stages, seen, now, deadlines)
    return end(run, seen, now, deadlines)


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
    if instance.lost or instance.retired:
        action = terminate(instance, seen)
        return None if isinstance(action, Wait) else action
    reason = why_lost(run, instance, seen, now, deadlines)
    if reason:
        return Resume(instance.id, reason)
    return Restarted(instance.id) if presence in ("restarted", "wiped") else None


def _ending(
    run: Run, stages: tuple[Stage, ...], seen: Seen, now: datetime, deadlines: Deadlines
) -> Outcome | None:
    """The outcome, once something has ended the run."""
    if run.teardown:
        return Outcome("CANCELLED", f"teardown: {run.teardown}", "asked")
    over = over_budget(run, seen.expected_drain_s, now)
    if over:
        return Outcome("FAILED", over, "budget")
    refused = refusal(run, stages, seen, now, deadlines)
    if refused:
        return refused
    losses = host_losses(run)
    if losses > run.limits.host_loss and not _needs_no_box(run, now, deadlines):
        return Outcome(
            "FAILED",
            f"{losses} instances were lost or restarted, {run.limits.host_loss} allowed",
            "host",
        )
    nothing = ended_search(run, _stage(run, stages).offers, now, deadlines.capacity_s)
    if nothing:
        return nothing
    for key, message in seen.gave_up.items():
        return Outcome("FAILED", f"{key.split(':')[0]}: {message}", "config")
    return _after_exit(run, stages, now, deadlines)


def _needs_no_box(run: Run, now: datetime, deadlines: Deadlines) -> bool:
    """Whether nothing is lost with its box: the phase has succeeded, or a person is asked."""
    is_asked = run.phase is not None and run.phase.waiting is not None
    return is_asked or bool(success_of(run, now, deadlines))


def _stage(run: Run, stages: tuple[Stage, ...]) -> Stage:
    """What the plan says of the phase that the run is in."""
    return stages[run.phase.index if run.phase else 0]


def _after_exit(
    run: Run, stages: tuple[Stage, ...], now: datetime, deadlines: Deadlines
) -> Outcome | None:
    """How the run ends when the trainer has. A phase that succeeded ends it only where nothing
    comes after it and nobody judges it: then all of it comes home in the drain."""
    success = success_of(run, now, deadlines)
    if success:
        index = run.phase.index if run.phase else 0
        is_end = index + 1 == len(stages) and not stages[index].gated
        return Outcome("SUCCEEDED", success, "done") if is_end else None
    attempt = run.attempt
    if attempt is None or attempt.live or attempt.lost or not is_settled(attempt, now, deadlines):
        return None
    if attempt.stopping_at and attempt.stopping_for != HANG:
        return stopped_short(run, _stage(run, stages), attempt)
    if attempt.rc == 0 and not attempt.stopping_at:
        what = "before the last step" if final_of(run, attempt) else "without final weights"
        return Outcome("FAILED", f"the trainer ended with 0 {what}", "incomplete")
    if is_fatal(attempt):
        asked = is_asked_about(run, _stage(run, stages))
        return None if asked else Outcome("FAILED", crash_words(attempt), "config")
    spent = crashes_spent(run)
    if spent > run.limits.crash:
        why = (
            f"; {spent} crashes spent of {run.limits.crash} (one that gained no checkpoint is two)"
        )
        return Outcome("FAILED", crash_words(attempt) + why, "crash")
    return None


def _advance(
    run: Run, stages: tuple[Stage, ...], seen: Seen, now: datetime, deadlines: Deadlines
) -> Action:
    """The next step towards the end of the phase, or from one to the next."""
    phase = run.phase
    if phase is None:
        return begin_first(stages)
    if phase.ended:
        return begin_next(run, phase, stages)
    if is_void(phase, stages) and not (run.attempt and run.attempt.live):
        return begin_anew(run, phase, stages)
    asked = question(phase, seen)
    if asked:
        return asked
    success = success_of(run, now, deadlines)
    if success:
        return after_success(run, phase, stages, success, seen, now, deadlines)
    asked = ask_about_end(run, stages[phase.index])
    if asked:
        return asked
    return _towards_training(run, phase, stages[phase.index], seen, now, deadlines)


def _towards_training(
    run: Run, phase: Phase, stage: Stage, seen: Seen, now: datetime, deadlines: Deadlines
) -> Action:
    """The next step towards a trainer that runs."""
    attempt, instance = run.attempt, run.instance
    if phase.waiting and (attempt is None or is_settled(attempt, now, deadlines) or attempt.lost):
        return await_person(run, phase, stage, seen, now, deadlines)
    if is_looked_for(run, now, deadlines):
        return Wait("S3 is asked what the lost box left there")
    if instance is None:
        # Two instances of one run never bill at once: the last one first has to be proven gone.
        billing = run.still_billing
        if billing:
            return Wait(f"{billing[0].id} is being ended")
        return _rent(run, stage.offers, seen, now)
    if instance.provider_id is None:
        return _unanswered(instance, seen)
    if instance.state == "PENDING":
        return Wait("the instance boots")
    if not instance.prepared:
        return unless_busy(f"prepare:{instance.id}", seen, Prepare(instance.id))
    return _train(run, stage, instance, seen, now, deadlines)


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


def _train(
    run: Run, stage: Stage, instance: Instance, seen: Seen, now: datetime, deadlines: Deadlines
) -> Action:
    attempt = run.attempt
    if attempt is None or attempt.lost or attempt.instance != instance.id:
        return Start(instance.id, newest_source(run, instance.id, warm=stage.warm_starts))
    again = Start(instance.id, attempt.resume, attempt.number)
    settled = is_settled(attempt, now, deadlines)
    if attempt.started_at is None or (seen.agent_alive is False and not settled):
        return unless_busy(f"start:{attempt.number}", seen, again)
    if attempt.live and attempt.stopping_at:
        saves = stage.saves_on_stop and attempt.stopping_for != HANG
        grace_s = deadlines.save_grace_s if saves else deadlines.stop_grace_s
        return stop_trainer(instance, attempt, attempt.stopping_at, grace_s, seen, now)
    if attempt.live:
        due = halt_for_hang(run, attempt, seen)
        due = due or stop_due(run, stage, attempt, seen, now, deadlines)
        return due or Wait("the trainer runs")
    if not settled:
        return Wait("the box seals what the trainer left")
    left = leave_host(run, attempt, instance, now, deadlines)
    if left:
        return left
    return Start(instance.id, newest_source(run, instance.id, warm=stage.warm_starts))
