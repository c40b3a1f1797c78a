"""The plan, for a person to say yes to."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.core.codec import to_json
from orchestrator.core.offer import Offer
from orchestrator.core.plan import Plan
from orchestrator.core.run import Limits
from orchestrator.views.disk import disk_rows
from orchestrator.views.offers import offer_age, offer_place
from orchestrator.views.words import dollars, duration, size

SHOWN = 4
Row = tuple[str, str]


def plan_text(plan: Plan, now: datetime, self_stop: Collection[str] = ()) -> str:
    """The plan as aligned lines; `self_stop` are the providers whose boxes can end their own
    billing."""
    rows = list(_rows(plan, now, self_stop))
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"{key.ljust(width)}  {value}".rstrip() for key, value in rows)


def plan_json(plan: Plan) -> str:
    """The plan as one JSON object; the trees by digest, their file lists left out."""
    brief = replace(plan, uploads=tuple(replace(upload, manifest={}) for upload in plan.uploads))
    record: dict[str, Any] = to_json(brief)
    for upload in record["uploads"]:
        del upload["manifest"]
    return json.dumps({**record, "ceiling_usd": plan.ceiling_usd}, indent=2, sort_keys=True)


def _rows(plan: Plan, now: datetime, self_stop: Collection[str]) -> Iterator[Row]:
    yield "job", plan.name
    yield from _money(plan, now)
    yield from _travels(plan)
    command, *more = plan.command.strip().splitlines()
    yield "run", command
    for line in more:
        yield "", line
    yield "checkpoints", f"{plan.checkpoints.path} on the box -> {plan.checkpoints.mirror}"
    yield from disk_rows(plan)
    if plan.checkpoints.also:
        yield "also", f"{plan.checkpoints.also.uri} (pushed by the box)"
    limits = plan.limits
    yield "recovery", f"{limits.host_loss} lost instances, {limits.crash} crashes"
    yield from _alone(plan, self_stop)


def _money(plan: Plan, now: datetime) -> Iterator[Row]:
    offer, others = plan.offer, plan.offers[1:]
    yield "instance", _name(offer, f"({offer.id})")
    yield "price", _price(offer, now)
    for other in others[:SHOWN]:
        yield "  or", f"{_name(other)} at {_price(other, now)}"
    rest = others[SHOWN:]
    if rest:
        dearest = max(each.usd_per_hour for each in rest)
        yield "  or", f"{len(rest)} more, up to {dollars(dearest)}/h"
    budget = _budget(plan.limits)
    if budget:
        yield "budget", budget
    yield "ceiling", _ceiling(plan)


def _travels(plan: Plan) -> Iterator[Row]:
    for upload in plan.uploads:
        files = f"{upload.files} file{'' if upload.files == 1 else 's'}"
        yield upload.what, f"{files}, {size(upload.size_bytes)}: {upload.source} -> {upload.dest}"
        for path, why in upload.skipped:
            yield "  not", f"{path} ({why})"
    if plan.secrets:
        yield "secrets", ", ".join(plan.secrets) + " (a 0600 file on the box)"
    if plan.setup:
        yield "setup", " && ".join(plan.setup.strip().splitlines())


def _name(offer: Offer, more: str = "") -> str:
    words = f"{offer.gpu}:{offer.count} from {offer.provider} {more}".rstrip()
    return ", ".join(part for part in (words, offer_place(offer)) if part)


def _price(offer: Offer, now: datetime) -> str:
    return f"{dollars(offer.usd_per_hour)}/h{offer_age(offer, now)}"


def _budget(limits: Limits) -> str:
    parts = [
        None if limits.budget_usd is None else f"{dollars(limits.budget_usd)} in all",
        None if limits.budget_usd_per_hour is None else f"{dollars(limits.budget_usd_per_hour)}/h",
        None if limits.budget_hours is None else f"{limits.budget_hours:g} instance hours",
    ]
    return ", ".join(part for part in parts if part)


def _ceiling(plan: Plan) -> str:
    ceiling = plan.ceiling_usd
    if ceiling is None:
        return "none: set `budget: {usd: …}` to bound what the run may cost"
    return f"{dollars(ceiling)} for the whole run"


def _alone(plan: Plan, self_stop: Collection[str]) -> Iterator[Row]:
    """What a box does about its own bill when this machine is heard no more."""
    paid = list(dict.fromkeys(each.provider for each in plan.offers if each.usd_per_hour > 0))
    able = [name for name in paid if name in self_stop]
    unable = [name for name in paid if name not in self_stop]
    if able:
        after = duration(plan.orphan_s)
        yield "alone", f"{', '.join(able)}: a box whose trainer has ended and that hears nothing"
        yield "", f"from this machine for {after} stops itself, and its GPU bills no more"
    if unable:
        yield (
            "" if able else "alone",
            f"{', '.join(unable)}: a box that loses this machine cannot stop its own billing",
        )
