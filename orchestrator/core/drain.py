"""How long a drain waits: the box may hold the only copy, and it bills."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.core.actions import Deadlines, Seen
from orchestrator.core.budget import budget_left_s, over_budget
from orchestrator.core.loss import is_past
from orchestrator.core.run import Run


def why_given_up(run: Run, seen: Seen, now: datetime, deadlines: Deadlines) -> str:
    """Why what is missing is waited for no longer; empty while it is.

    Nothing that moves for `drain_s`, unless a disk here keeps it from moving or nobody was there
    to move it; the budget, once the
    trainer had its time to save; and without one a day, or three when what moves will be here by
    then."""
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
