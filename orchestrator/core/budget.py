"""What the run may cost: how much of it is spent, and when it is time to end."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.run import Run


def over_budget(run: Run, drain_s: float, now: datetime) -> str | None:
    """Why the run must end now: what is spent, and what a drain of `drain_s` would add, reaches
    the budget. None while it does not."""
    ahead_h = drain_s / 3600
    burning = sum(each.price_usd_per_hour for each in run.instances if each.may_bill)
    limits = run.limits
    spent = run.spent_usd(now)
    if limits.budget_usd is not None and spent + burning * ahead_h >= limits.budget_usd:
        return f"${spent:.2f} spent of a budget of ${limits.budget_usd:.2f}"
    hours = run.rented_hours(now)
    if limits.budget_hours is not None and hours + ahead_h >= limits.budget_hours:
        return f"{hours:.2f} instance hours used of a budget of {limits.budget_hours:.2f}"
    return None


def budget_left_s(run: Run, now: datetime) -> float | None:
    """For how long what is rented now may go on; None without a budget that ends it."""
    limits, price = run.limits, sum(each.price_usd_per_hour for each in run.still_billing)
    left_h = []
    if limits.budget_hours is not None:
        left_h.append(
            (limits.budget_hours - run.rented_hours(now)) / max(1, len(run.still_billing))
        )
    if limits.budget_usd is not None and price > 0:
        left_h.append((limits.budget_usd - run.spent_usd(now)) / price)
    return max(0.0, min(left_h)) * 3600 if left_h else None


def budget_share(run: Run, now: datetime) -> float:
    """How much of the tightest budget is spent, 1.0 being all of it; 0 without a budget."""
    limits = run.limits
    shares = [
        spent / budget
        for spent, budget in (
            (run.spent_usd(now), limits.budget_usd),
            (run.rented_hours(now), limits.budget_hours),
        )
        if budget
    ]
    return max(shares, default=0.0)
