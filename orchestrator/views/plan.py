"""The plan, for a person to say yes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from orchestrator.core.codec import to_json
from orchestrator.core.plan import Plan
from orchestrator.views.words import dollars, size


def plan_text(plan: Plan) -> str:
    """The plan as aligned lines."""
    rows = list(_rows(plan))
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"{key.ljust(width)}  {value}".rstrip() for key, value in rows)


def plan_json(plan: Plan) -> str:
    """The plan as one JSON object; the trees by digest, their file lists left out."""
    brief = replace(plan, uploads=tuple(replace(upload, manifest={}) for upload in plan.uploads))
    record: dict[str, Any] = to_json(brief)
    for upload in record["uploads"]:
        del upload["manifest"]
    return json.dumps({**record, "ceiling_usd": plan.ceiling_usd}, indent=2, sort_keys=True)


def _rows(plan: Plan) -> Iterator[tuple[str, str]]:
    offer = plan.offer
    yield "job", plan.name
    yield "instance", f"{offer.gpu}:{offer.count} from {offer.provider} ({offer.id})"
    yield "price", f"{dollars(offer.usd_per_hour)}/h"
    for other in plan.offers[1:4]:
        name = f"{other.gpu}:{other.count} from {other.provider}"
        yield "  or", f"{name} at {dollars(other.usd_per_hour)}/h"
    yield "ceiling", _ceiling(plan)
    for upload in plan.uploads:
        files = f"{upload.files} file{'' if upload.files == 1 else 's'}"
        yield upload.what, f"{files}, {size(upload.size_bytes)}: {upload.source} -> {upload.dest}"
        for path, why in upload.skipped:
            yield "  not", f"{path} ({why})"
    if plan.secrets:
        yield "secrets", ", ".join(plan.secrets) + " (a 0600 file on the box)"
    if plan.setup:
        yield "setup", " && ".join(plan.setup.strip().splitlines())
    command, *more = plan.command.strip().splitlines()
    yield "run", command
    for line in more:
        yield "", line
    yield "checkpoints", f"{plan.checkpoints.path} on the box -> {plan.checkpoints.mirror}"
    limits = plan.limits
    yield "recovery", f"{limits.host_loss} lost instances, {limits.crash} crashes"


def _ceiling(plan: Plan) -> str:
    ceiling = plan.ceiling_usd
    if ceiling is None:
        return "none: set `budget: {usd: …}` to bound what the run may cost"
    return f"{dollars(ceiling)} for the whole run"
