"""What a run costs: by instance, by attempt, in all, and of its budget."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from orchestrator.core.phase_of import phase_name
from orchestrator.core.run import Instance, Run
from orchestrator.views.runs import table
from orchestrator.views.words import dollars

INSTANCES = ("INSTANCE", "PROVIDER", "OFFER", "REGION", "FROM", "TO", "HOURS", "COST")
ATTEMPTS = ("ATTEMPT", "INSTANCE", "COST")


def cost_text(run: Run, now: datetime) -> str:
    """Two tables and the sums; times are local."""
    parts = []
    if _rented(run):
        parts.append(table(INSTANCES, [_instance_row(each, now) for each in _rented(run)]))
    if run.attempts:
        parts.append(table(ATTEMPTS, list(_attempt_rows(run, now))))
    parts.append("\n".join(_sums(run, now)))
    return "\n\n".join(parts)


def cost_record(run: Run, now: datetime) -> dict[str, Any]:
    """One object for `--json`."""
    limits = run.limits
    return {
        "run": run.id,
        "cost_usd": round(run.spent_usd(now), 6),
        "hours": round(run.rented_hours(now), 6),
        "budget_usd": limits.budget_usd,
        "budget_hours": limits.budget_hours,
        "still_billing": [each.id for each in run.still_billing],
        "instances": [_instance_record(each, now) for each in _rented(run)],
        "attempts": [
            {"attempt": number, "cost_usd": round(usd, 6)} for number, usd in run.attempt_costs(now)
        ],
    }


def _rented(run: Run) -> list[Instance]:
    """Without the tries that rented nothing."""
    return [each for each in run.instances if not each.refused]


def _instance_row(instance: Instance, now: datetime) -> tuple[str, ...]:
    return (
        instance.id,
        instance.provider,
        instance.offer,
        instance.region or "-",
        _minute(instance.intended_at),
        _minute(instance.ends_at(now)) if instance.gone_at else "still billing",
        f"{instance.hours(now):.2f}",
        dollars(instance.cost_usd(now)),
    )


def _instance_record(instance: Instance, now: datetime) -> dict[str, Any]:
    return {
        "instance": instance.id,
        "provider": instance.provider,
        "offer": instance.offer,
        "region": instance.region,
        "from_at": instance.intended_at,
        "to_at": instance.ends_at(now) if instance.gone_at else None,
        "usd_per_hour": instance.price_usd_per_hour,
        "hours": round(instance.hours(now), 6),
        "cost_usd": round(instance.cost_usd(now), 6),
    }


def _attempt_rows(run: Run, now: datetime) -> Iterator[tuple[str, ...]]:
    attempts = {each.number: each for each in run.attempts}
    for number, usd in run.attempt_costs(now):
        if number:
            phase = phase_name(run, attempts[number].phase) if len(run.phases) > 1 else ""
            name = f"{number} ({phase})" if phase else str(number)
            yield name, attempts[number].instance, dollars(usd)
        elif usd:
            yield "none", "trained nothing", dollars(usd)


def _sums(run: Run, now: datetime) -> Iterator[str]:
    spent, hours, limits = run.spent_usd(now), run.rented_hours(now), run.limits
    yield f"total   {dollars(spent)} for {hours:.2f} instance hours"
    if limits.budget_usd:
        yield f"budget  {spent / limits.budget_usd:.0%} of {dollars(limits.budget_usd)}"
    if limits.budget_hours:
        yield f"budget  {hours / limits.budget_hours:.0%} of {limits.budget_hours:g} instance hours"
    refused = len(run.instances) - len(_rented(run))
    if refused:
        yield f"tries   {refused} rented nothing; `gpujob events {run.id}` says why"
    if run.still_billing:
        yield f"billing {billing_words(run)}"


def billing_words(run: Run) -> str:
    """What may still bill, by name and price; "nothing" when all is gone."""
    return (
        ", ".join(
            f"{each.id} ({each.provider}, {dollars(each.price_usd_per_hour)}/h)"
            for each in run.still_billing
        )
        or "nothing"
    )


def _minute(at: datetime) -> str:
    return at.astimezone().strftime("%m-%d %H:%M")
