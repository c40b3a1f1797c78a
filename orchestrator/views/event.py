"""One event, one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.printable import printable
from orchestrator.core.run import Event
from orchestrator.views.words import clock, dollars, duration, size

Data = Mapping[str, Any]


def event_line(event: Event) -> str:
    """The line that `watch` and `events` show for an event."""
    words = _WORDS.get(event.kind)
    text = words(event.data) if words else event.kind
    return f"{clock(event.at)}  {printable(text)}"


def _resume(data: Data) -> str:
    source = data["resume"]
    return f"resuming from {source['name']}" if source else "from the beginning"


def _exit(data: Data) -> str:
    said = f": {data['message']}" if data["message"] else ""
    return f"the trainer of attempt {data['attempt']} ended with {data['rc']} ({data['why']}){said}"


def _sealed(data: Data) -> str:
    return f"{data['name']} is complete on {data['instance']}, {size(data['size_bytes'])}"


def _missing(data: Data) -> str:
    missing, why = data["missing"], data.get("why")
    because = f": {why}" if why else ""
    return f"drained without {', '.join(missing)}{because}" if missing else "everything is here"


def _draining(data: Data) -> str:
    expected_s, until = data.get("expected_s"), data.get("until")
    took = f"; what is missing takes about {duration(expected_s)}" if expected_s else ""
    return f"draining: {data['reason']}{took}" + (f", until {until[:16]}" if until else "")


def _low(data: Data) -> str:
    whose = "the box's disk" if data["where"] == "box" else "the disk of the mirror here"
    full = f", full at about {data['full_at'][:16]}" if data.get("full_at") else ""
    free, needed = size(data["free_bytes"]), size(data["needed_bytes"])
    return f"RED FLAG: {whose} has {free} left, and {needed} are needed{full}"


def _phase_begun(data: Data) -> str:
    start, until = data.get("start"), data.get("until_step")
    begin = f", from {start['name']}" if start else ""
    end = f", to step {until}" if until else ""
    box = f", on {data['instance']} again" if data.get("instance") else ""
    return f"phase {data['phase']} begins{begin}{end}{box}"


def _flagged(data: Data) -> str:
    advice = f". {data['advice']}" if data.get("advice") else ""
    label = "warning" if data["action"] == "warn" else "RED FLAG"
    return f"{label} {data['rule']} ({data['flag']}): {data['words']}{advice}"


_STOPPED = {
    "steps": "its phase is to end here",
    "flag": "a person is asked first",
    "hang": "it hangs, and goes on from its newest checkpoint",
}
_WORDS: dict[str, Callable[[Data], str]] = {
    "planned": lambda data: f"planned {data['name']}",
    "requested.teardown": lambda data: f"teardown asked for: {data['reason']}",
    "requested.fetch": lambda data: (
        f"{data['name']} is asked for again: it is not here as it was verified"
    ),
    "requested.approve": lambda data: (
        f"{data.get('by') or 'a person'} says {'yes' if data['yes'] else 'no'}"
    ),
    "phase.begun": _phase_begun,
    "phase.reached": lambda data: (
        f"phase {data['phase']} has made step {data['step']}: its next checkpoint ends it"
    ),
    "phase.extended": lambda data: (
        f"phase {data['phase']} goes on to step {data['until_step']}: its gate could not tell"
    ),
    "phase.held": lambda data: (
        f"WAITING for a person (`gpujob approve`, or with --no): {data['reason']}"
    ),
    "phase.ended": lambda data: f"phase {data['phase']} has ended: {data['verdict']}",
    "gate.judged": lambda data: (
        f"the gate of {data['phase']} says {data['verdict']}: {'; '.join(data['reasons'])}"
    ),
    "health.flagged": _flagged,
    "instance.retired": lambda data: f"{data['instance']} is given back: {data['reason']}",
    "attempt.stopping": lambda data: (
        f"the trainer of attempt {data['attempt']} is stopped: {_STOPPED[data['why']]}"
    ),
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
    "instance.looked": lambda data: (
        f"looked for what {data['instance']} left in S3: {data['message']}"
    ),
    "instance.terminating": lambda data: f"ending {data['instance']}",
    "instance.gone": lambda data: f"{data['instance']} is gone, proven by its provider's list",
    "attempt.intended": lambda data: (
        f"attempt {data['attempt']} on {data['instance']}, {_resume(data)}"
    ),
    "attempt.started": lambda data: f"the trainer of attempt {data['attempt']} runs",
    "attempt.exited": _exit,
    "attempt.dumped": lambda data: (
        f"attempt {data['attempt']} hangs; taken down before anything is ended: {data['words']},"
        f" to {data['place']}"
    ),
    "attempt.abandoned": lambda data: f"attempt {data['attempt']} cannot start: {data['reason']}",
    "attempt.settled": lambda data: f"the box has sealed all that attempt {data['attempt']} left",
    "checkpoint.sealed": _sealed,
    "checkpoint.mirrored": lambda data: f"{data['name']} is here, verified: {data['path']}",
    "checkpoint.pushed": lambda data: f"{data['name']} is in S3: {data['uri']}",
    "push.failed": lambda data: (
        f"RED FLAG: checkpoints do not reach S3, tried again: {data['message']}"
    ),
    "store.refused": lambda data: (
        f"RED FLAG: checkpoints cannot be fetched from S3, tried again: {data['message']}"
    ),
    "store.answered": lambda data: "checkpoints come from S3 again",
    "checkpoint.measured": lambda data: (
        f"{data['name']} was measured after it came here, and is looked at once more"
    ),
    "checkpoint.pruned": lambda data: f"{data['name']} was let go here by checkpoints.keep",
    "mirror.paused": lambda data: f"RED FLAG: the mirror takes nothing: {data['message']}",
    "mirror.resumed": lambda data: "the mirror takes checkpoints again",
    "disk.low": _low,
    "disk.eased": lambda data: f"the disk {data['where']} has room again",
    "checkpoint.acked": lambda data: f"{data['name']} may go from {data['instance']}",
    "checkpoint.failed": lambda data: f"{data['name']} was refused: {data['reason']}",
    "deadman.fired": lambda data: f"{data['instance']} acted by itself: {data['reason']}",
    "deadman.held": lambda data: f"{data['instance']} does not stop itself: {data['reason']}",
    "deadman.refused": lambda data: (
        f"{data['instance']} still bills, it could not stop itself: {data['reason']}"
    ),
    "drain.begun": _draining,
    "drain.ended": _missing,
    "run.finished": lambda data: "the run has ended",
}
