"""One event, one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.run import Event
from orchestrator.views.words import clock, dollars, size

Data = Mapping[str, Any]


def event_line(event: Event) -> str:
    """The line that `watch` and `events` show for an event."""
    words = _WORDS.get(event.kind)
    text = words(event.data) if words else event.kind
    return f"{clock(event.at)}  {text}"


def _resume(data: Data) -> str:
    source = data["resume"]
    return f"resuming from {source['name']}" if source else "from the beginning"


def _exit(data: Data) -> str:
    said = f": {data['message']}" if data["message"] else ""
    return f"the trainer of attempt {data['attempt']} ended with {data['rc']} ({data['why']}){said}"


def _sealed(data: Data) -> str:
    return f"{data['name']} is complete on {data['instance']}, {size(data['size_bytes'])}"


def _missing(data: Data) -> str:
    missing = data["missing"]
    return f"drained without {', '.join(missing)}" if missing else "everything is here"


_WORDS: dict[str, Callable[[Data], str]] = {
    "planned": lambda data: f"planned {data['name']}",
    "requested.teardown": lambda data: f"teardown asked for: {data['reason']}",
    "instance.intended": lambda data: (
        f"renting {data['instance']}: {data['offer']} of {data['provider']}"
    ),
    "instance.created": lambda data: f"{data['instance']} is rented ({data['provider_id']})",
    "instance.refused": lambda data: f"{data['instance']} was not rented: {data['message']}",
    "instance.reappeared": lambda data: (
        f"{data['instance']} was taken for gone and is listed: it bills, and is ended now"
    ),
    "instance.priced": lambda data: (
        f"{data['instance']} costs {dollars(data['usd_per_hour'])}/h from now on"
    ),
    "instance.rekeyed": lambda data: f"{data['instance']} is listed under a new key",
    "instance.moved": lambda data: f"{data['instance']} is now at {data['host']}:{data['port']}",
    "instance.restarted": lambda data: f"{data['instance']} was restarted: {data['reason']}",
    "instance.wiped": lambda data: (
        f"{data['instance']} begins anew as {data['successor']}: {data['reason']}"
    ),
    "instance.released": lambda data: f"{data['instance']}: its provider took the order",
    "offers.exhausted": lambda data: (
        f"no offer could be rented; all are asked again at {data['again_at'][:19]}"
    ),
    "budget.warned": lambda data: f"{data['share']:.0%} of the budget is spent",
    "instance.running": lambda data: (
        f"{data['instance']} runs at {data['user']}@{data['host']}:{data['port']}"
    ),
    "instance.prepared": lambda data: f"{data['instance']} is prepared",
    "instance.lost": lambda data: f"{data['instance']} is lost: {data['reason']}",
    "instance.terminating": lambda data: f"ending {data['instance']}",
    "instance.gone": lambda data: f"{data['instance']} is gone, proven by its provider's list",
    "attempt.intended": lambda data: (
        f"attempt {data['attempt']} on {data['instance']}, {_resume(data)}"
    ),
    "attempt.started": lambda data: f"the trainer of attempt {data['attempt']} runs",
    "attempt.exited": _exit,
    "attempt.abandoned": lambda data: f"attempt {data['attempt']} cannot start: {data['reason']}",
    "attempt.settled": lambda data: f"the box has sealed all that attempt {data['attempt']} left",
    "checkpoint.sealed": _sealed,
    "checkpoint.mirrored": lambda data: f"{data['name']} is here, verified: {data['path']}",
    "checkpoint.pushed": lambda data: f"{data['name']} is in S3: {data['uri']}",
    "push.failed": lambda data: (
        f"RED FLAG: checkpoints do not reach S3, tried again: {data['message']}"
    ),
    "checkpoint.acked": lambda data: f"{data['name']} may go from {data['instance']}",
    "checkpoint.failed": lambda data: f"{data['name']} was refused: {data['reason']}",
    "deadman.fired": lambda data: f"{data['instance']} acted by itself: {data['reason']}",
    "deadman.held": lambda data: f"{data['instance']} does not stop itself: {data['reason']}",
    "deadman.refused": lambda data: (
        f"{data['instance']} still bills, it could not stop itself: {data['reason']}"
    ),
    "drain.begun": lambda data: f"draining: {data['reason']}",
    "drain.ended": _missing,
    "run.finished": lambda data: "the run has ended",
}
