"""The plan, for a person to say yes to."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.core.codec import to_json
from orchestrator.core.offer import Offer
from orchestrator.core.plan import PhasePlan, Plan
from orchestrator.core.run import Limits
from orchestrator.views.disk import disk_rows
from orchestrator.views.gate import gate_rows
from orchestrator.views.offers import offer_age, offer_place
from orchestrator.views.words import dollars, duration, size

SHOWN = 4
# Layouts of trainers that save no optimizer: what they wrote is good for a warm start alone.
WEIGHTS_ALONE = frozenset({"torchllms"})
Row = tuple[str, str]


def plan_text(plan: Plan, now: datetime, self_stop: Collection[str] = ()) -> str:
    """The plan as aligned lines; `self_stop` are the providers whose boxes can end their own
    billing."""
    rows = list(_rows(plan, now, self_stop))
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"{key.ljust(width)}  {value}".rstrip() for key, value in rows)


def plan_json(plan: Plan) -> str:
    """The plan as one JSON object; the trees by digest, their file lists left out."""
    record: dict[str, Any] = to_json(replace(plan, phases=tuple(map(_brief, plan.phases))))
    for phase in record["phases"]:
        for upload in phase["uploads"]:
            del upload["manifest"]
    return json.dumps({**record, "ceiling_usd": plan.ceiling_usd}, indent=2, sort_keys=True)


def _brief(phase: PhasePlan) -> PhasePlan:
    uploads = tuple(replace(each, manifest={}) for each in phase.uploads)
    return replace(phase, uploads=uploads, patch=tuple(replace(p, text="") for p in phase.patch))


def _rows(plan: Plan, now: datetime, self_stop: Collection[str]) -> Iterator[Row]:
    yield "job", plan.name
    if len(plan.phases) == 1:
        (only,) = plan.phases
        yield from gate_rows(only)
        yield from _money(only, now)
        yield from _budget_rows(plan)
        yield from _travels(only)
        yield from _secrets(only)
        yield from _runs(only)
    else:
        yield from _budget_rows(plan)
        for number, phase in enumerate(plan.phases, start=1):
            yield from _phase(number, phase, plan, now)
        yield "", ""
    yield from _alone(plan, self_stop)


def _phase(number: int, phase: PhasePlan, plan: Plan, now: datetime) -> Iterator[Row]:
    """A phase under its own line; what it has in common with the one before is not said again."""
    yield "", ""
    yield f"phase {number}", phase.name
    before = plan.phases[number - 2] if number > 1 else None
    yield from gate_rows(phase)
    told = set(_told(before, plan, now)) if before else set()
    yield from (row for row in _told(phase, plan, now) if row not in told)


def _told(phase: PhasePlan, plan: Plan, now: datetime) -> list[Row]:
    secrets = [*_secrets(phase)] or [("secrets", "none")] if plan.secrets else []
    return [*_money(phase, now), *_travels(phase), *secrets, *_runs(phase)]


def _runs(phase: PhasePlan) -> Iterator[Row]:
    if phase.setup:
        yield "setup", " && ".join(phase.setup.strip().splitlines())
    command, *more = phase.command.strip().splitlines()
    yield "run", command
    for line in more:
        yield "", line
    yield "checkpoints", f"{phase.checkpoints.path} on the box -> {phase.checkpoints.mirror}"
    yield from disk_rows(phase)
    if phase.checkpoints.also:
        yield "also", f"{phase.checkpoints.also.uri} (pushed by the box)"
    recovery = phase.recovery
    yield "recovery", f"{recovery.host_loss} lost instances, {recovery.crash} crashes"
    if phase.checkpoints.layout in WEIGHTS_ALONE and not phase.stage.warm_starts:
        layout, price = phase.checkpoints.layout, dollars(phase.offer.usd_per_hour)
        yield "", f"each begins at step 1 ({layout} saves weights alone): it costs"
        yield "", f"{price} for every hour trained until then"


def _money(phase: PhasePlan, now: datetime) -> Iterator[Row]:
    offer, others = phase.offer, phase.offers[1:]
    yield "instance", _name(offer, f"({offer.id})")
    yield "price", _price(offer, now)
    for other in others[:SHOWN]:
        yield "  or", f"{_name(other)} at {_price(other, now)}"
    rest = others[SHOWN:]
    if rest:
        dearest = max(each.usd_per_hour for each in rest)
        yield "  or", f"{len(rest)} more, up to {dollars(dearest)}/h"


def _budget_rows(plan: Plan) -> Iterator[Row]:
    budget = _budget(plan.limits)
    if budget:
        yield "budget", budget
    yield "ceiling", _ceiling(plan)


def _travels(phase: PhasePlan) -> Iterator[Row]:
    for upload in phase.uploads:
        files = f"{upload.files} file{'' if upload.files == 1 else 's'}"
        yield upload.what, f"{files}, {size(upload.size_bytes)}: {upload.source} -> {upload.dest}"
        for path, why in upload.skipped:
            yield "  not", f"{path} ({why})"
    for patch in phase.patch:
        yield "patch", f"{patch.path}: {', '.join(patch.changed)}"
    if phase.changed:
        yield "differs", f"from what was validated: {', '.join(phase.changed)}"


def _secrets(phase: PhasePlan) -> Iterator[Row]:
    if phase.secrets:
        yield "secrets", ", ".join(phase.secrets) + " (a 0600 file on the box)"


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
        after = duration(plan.phases[0].orphan_s)
        yield "alone", f"{', '.join(able)}: a box whose trainer has ended and that hears nothing"
        yield "", f"from this machine for {after} stops itself, and its GPU bills no more"
    if unable:
        yield (
            "" if able else "alone",
            f"{', '.join(unable)}: a box that loses this machine cannot stop its own billing",
        )
