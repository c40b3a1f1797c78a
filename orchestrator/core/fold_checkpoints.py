"""What the events of checkpoints, of the mirror and of S3 change in a run: a part of `fold.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.core.changes import Step, change_seal
from orchestrator.core.run import DiskLow, Event, Paused, Run, Seal


def _sealed(run: Run, event: Event) -> Run:
    data = event.data
    seal = Seal(
        instance=data["instance"],
        attempt=data["attempt"],
        name=data["name"],
        generation=data["generation"],
        step=data["step"],
        max_steps=data.get("max_steps"),
        size_bytes=data["size_bytes"],
        digest=data["digest"],
        final=data["final"],
        sealed_at=event.at,
        resumes=data.get("resumes", True),
    )
    again = all(
        each.attempt < seal.attempt or each.name != seal.name
        for each in run.seals
        if each.digest == seal.digest
    )  # trained anew, or under a name of its own: what was let go may be one to keep now
    pruned = tuple(each for each in run.pruned if not (again and each == seal.digest))
    return replace(run, seals=(*run.seals, seal), pruned=pruned)


def _mirrored(run: Run, event: Event) -> Run:
    digest = event.data["digest"]
    metrics = {**run.metrics, digest: event.data.get("metrics", {})}
    return replace(run, mirrored={**run.mirrored, digest: event.data["path"]}, metrics=metrics)


def _measured(run: Run, event: Event) -> Run:
    data = event.data
    metrics = {**run.metrics.get(data["digest"], {}), **data["metrics"]}
    return replace(run, metrics={**run.metrics, data["digest"]: metrics})


def _pruned(run: Run, event: Event) -> Run:
    digest = event.data["digest"]
    run = _not_here(run, digest)
    return replace(run, pruned=(*(each for each in run.pruned if each != digest), digest))


def _fetch_asked(run: Run, event: Event) -> Run:
    """What is here is not what it was: whoever has it still gives it again."""
    digest = event.data["digest"]
    seals = tuple(
        replace(seal, failed=None, failed_stored=None) if seal.digest == digest else seal
        for seal in run.seals
    )
    return _not_here(replace(run, seals=seals), digest)


def _not_here(run: Run, digest: str) -> Run:
    mirrored = {each: path for each, path in run.mirrored.items() if each != digest}
    return replace(run, mirrored=mirrored)


def _mirror_paused(run: Run, event: Event) -> Run:
    data = event.data
    at = run.paused.at if run.paused else event.at
    return replace(run, paused=Paused(data["reason"], data["message"], at))


def _mirror_resumed(run: Run, event: Event) -> Run:
    return replace(run, paused=None, resumed_at=event.at)


def _disk_low(run: Run, event: Event) -> Run:
    data = event.data
    full_at = datetime.fromisoformat(data["full_at"]) if data.get("full_at") else None
    low = DiskLow(data["free_bytes"], data["needed_bytes"], full_at)
    return replace(run, disk_low={**run.disk_low, data["where"]: low})


def _disk_eased(run: Run, event: Event) -> Run:
    left = {where: low for where, low in run.disk_low.items() if where != event.data["where"]}
    return replace(run, disk_low=left)


def _pushed(run: Run, event: Event) -> Run:
    data = event.data
    pushed = {**run.pushed, data["digest"]: data["uri"]}
    return replace(run, pushed=pushed, pushed_at=event.at, push_trouble="")


def _push_failed(run: Run, event: Event) -> Run:
    digest = event.data.get("digest")
    kept_off = (*run.never_pushed, digest) if digest else run.never_pushed
    return replace(run, push_trouble=event.data["message"], never_pushed=kept_off)


def _store_refused(run: Run, event: Event) -> Run:
    return replace(run, store_trouble=event.data["message"])


def _store_answered(run: Run, event: Event) -> Run:
    return replace(run, store_trouble="")


def _acked(run: Run, event: Event) -> Run:
    return change_seal(run, event, acked=True)


def _checkpoint_failed(run: Run, event: Event) -> Run:
    what = "failed_stored" if event.data.get("where") == "store" else "failed"
    return change_seal(run, event, **{what: event.data["reason"]})


CHECKPOINT_STEPS: dict[str, Step] = {
    "requested.fetch": _fetch_asked,
    "checkpoint.sealed": _sealed,
    "checkpoint.mirrored": _mirrored,
    "checkpoint.pushed": _pushed,
    "push.failed": _push_failed,
    "store.refused": _store_refused,
    "store.answered": _store_answered,
    "checkpoint.measured": _measured,
    "checkpoint.pruned": _pruned,
    "mirror.paused": _mirror_paused,
    "mirror.resumed": _mirror_resumed,
    "disk.low": _disk_low,
    "disk.eased": _disk_eased,
    "checkpoint.acked": _acked,
    "checkpoint.failed": _checkpoint_failed,
}
