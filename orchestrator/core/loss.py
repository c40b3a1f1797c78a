"""When an instance is given up. A loss needs the provider's word, or a deadline passed; UNKNOWN
is never GONE."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.core.actions import Deadlines, Seen
from orchestrator.core.run import Attempt, Instance, Run

MAX_RESTARTS = 3
UNREADABLE = frozenset({"missing", "failing"})


def why_lost(
    run: Run, instance: Instance, seen: Seen, now: datetime, deadlines: Deadlines
) -> str | None:
    """Why the instance is lost, or None."""
    if instance.provider_id is None:
        return None
    presence = seen.presence.get(instance.id, "unknown")
    if presence == "gone":
        # A list may miss in passing what lives: a box that talks to us is there.
        return None if _is_heard(run, instance, seen) else "the provider does not list it any more"
    if presence == "broken":
        return "the provider says it cannot work"
    if presence in ("restarted", "wiped"):
        return _restarted_too_often(run, instance, wiped=presence == "wiped")
    if not instance.prepared:
        return _never_ready(run, instance, seen, now, deadlines)
    attempt = run.attempt
    if attempt and _is_due(run, attempt, instance, now, deadlines):
        since = _since(seen, attempt.intended_at)
        return _late(now, since, deadlines.start_s, "the trainer did not start")
    silent = seen.silent.get(instance.id)
    if silent is None:
        return None
    since = _since(seen, silent)
    if presence == "unknown":
        return _late(now, since, deadlines.silent_s, "neither provider nor box answered")
    return _late(now, since, deadlines.deaf_s, "the box did not answer")


def is_past(now: datetime, since: datetime, limit_s: float) -> bool:
    return now - since >= timedelta(seconds=limit_s)


def _is_due(
    run: Run, attempt: Attempt, instance: Instance, now: datetime, deadlines: Deadlines
) -> bool:
    """Whether its trainer should start: not in a drain, and not while what it starts from cannot
    be read here, for which a day has to be enough."""
    if run.outcome or attempt.instance != instance.id or attempt.started_at or not attempt.live:
        return False
    if run.paused is None or run.paused.reason not in UNREADABLE:
        return True
    return is_past(now, run.paused.at, deadlines.drain_most_s)


def _never_ready(
    run: Run, instance: Instance, seen: Seen, now: datetime, deadlines: Deadlines
) -> str | None:
    """A boot has a deadline for each of its phases, and one for all."""
    ceiling = run.limits.budget_usd_per_hour
    if ceiling is not None and instance.price_usd_per_hour > ceiling + 1e-9:
        return f"it costs ${instance.price_usd_per_hour:.2f}/h, and ${ceiling:.2f}/h is allowed"
    if instance.running_at is None:
        boot = seen.boot.get(instance.id)
        if boot and is_past(now, boot.since, boot.limit_s):
            return f"it was still {boot.detail or boot.phase} after {boot.limit_s:.0f} s"
        since = max(instance.intended_at, seen.watching_since or instance.intended_at)
        return _late(now, since, deadlines.boot_s, "it did not boot")
    # One that is kept for the next phase is prepared once more, from then on.
    phase_at = run.phase.began_at if run.phase and run.serial else instance.running_at
    since = _since(seen, max(instance.running_at, phase_at))
    if instance.id not in seen.reached:
        reason = _late(now, since, deadlines.access_s, "ssh did not let us in")
        if reason:
            return reason
    return _late(now, since, deadlines.prepare_s, "it could not be prepared")


def _is_heard(run: Run, instance: Instance, seen: Seen) -> bool:
    attempt = run.attempt
    trains = attempt is not None and attempt.instance == instance.id and attempt.live
    return trains and seen.agent_alive is True and instance.id not in seen.silent


def _restarted_too_often(run: Run, instance: Instance, *, wiped: bool) -> str | None:
    if run.outcome and wiped:
        return "it was restarted, and its disk is empty"
    if instance.restarts >= MAX_RESTARTS:
        return f"it was restarted {instance.restarts + 1} times"
    return None


def _since(seen: Seen, event_at: datetime) -> datetime:
    """What a wait is counted from: the event, unless something moved or nobody looked since."""
    return max(each for each in (event_at, seen.moving_at, seen.watching_since) if each)


def _late(now: datetime, since: datetime, limit_s: float, what: str) -> str | None:
    return f"{what} within {limit_s:.0f} s" if is_past(now, since, limit_s) else None
