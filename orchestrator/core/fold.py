"""The one function that folds an event into a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.core.metrics import Metric
from orchestrator.core.run import (
    Attempt,
    DiskLow,
    Event,
    Instance,
    Limits,
    Outcome,
    Paused,
    Rate,
    Refusal,
    Run,
    Seal,
    Search,
    Source,
    final_is_safe,
    final_of,
)

# What one life of a machine is rounded to when the next begins at once.
MICROSECOND_S = 1e-6


def fold(run: Run, event: Event) -> Run:
    """The run after one more event. An unknown kind changes nothing but `seq`."""
    step = _STEPS.get(event.kind)
    changed = step(run, event) if step else run
    return replace(changed, seq=event.seq, updated_at=event.at)


def fold_all(run_id: str, events: Iterable[Event]) -> Run:
    run = Run(id=run_id)
    for event in events:
        run = fold(run, event)
    return run


def _planned(run: Run, event: Event) -> Run:
    data = event.data
    limits = Limits(
        host_loss=data["host_loss"],
        crash=data["crash"],
        budget_usd=data.get("budget_usd"),
        budget_hours=data.get("budget_hours"),
        budget_usd_per_hour=data.get("budget_usd_per_hour"),
    )
    return replace(
        run,
        name=data["name"],
        folder=data["folder"],
        mirror=data["mirror"],
        volume=data.get("volume", ""),
        volume_store=data.get("volume_store", False),
        also=data.get("also", ""),
        metric=Metric(**data["metric"]) if data.get("metric") else None,
        created_at=event.at,
        limits=limits,
    )


def _teardown(run: Run, event: Event) -> Run:
    return replace(run, teardown=event.data.get("reason") or "asked for")


def _intended(run: Run, event: Event) -> Run:
    data = event.data
    instance = Instance(
        id=data["instance"],
        provider=data["provider"],
        offer=data["offer"],
        usd_per_hour=data["usd_per_hour"],
        mark=data["mark"],
        intended_at=event.at,
        region=data.get("region", ""),
        billing_unit_s=data.get("billing_unit_s", 1.0),
        key_id=data.get("key_id", ""),
    )
    return replace(run, instances=(*run.instances, instance))


def _created(run: Run, event: Event) -> Run:
    return _instance(run, event, provider_id=event.data["provider_id"], created_at=event.at)


def _refused(run: Run, event: Event) -> Run:
    data = event.data
    refusal = Refusal(data["why"], data["message"], data.get("provider_wide", False))
    return _instance(run, event, refused=refusal, state="GONE", gone_at=event.at)


def _reappeared(run: Run, event: Event) -> Run:
    """It was taken for gone or never rented, and the provider lists it: it bills, so it is ended.
    That costs no recovery: the run may have gone on without it."""
    data = event.data
    return _instance(
        run,
        event,
        provider_id=data["provider_id"],
        refused=None,
        gone_at=None,
        released_at=None,
        state="BROKEN",
        terminating=True,
    )


def _priced(run: Run, event: Event) -> Run:
    rate = Rate(event.at, event.data["usd_per_hour"])
    return _change(run, event, lambda each: replace(each, rates=(*each.rates, rate)))


def _rekeyed(run: Run, event: Event) -> Run:
    return _instance(run, event, key_id=event.data["key_id"])


def _moved(run: Run, event: Event) -> Run:
    return _instance(run, event, host=event.data["host"], port=event.data["port"])


def _restarted(run: Run, event: Event) -> Run:
    """Its processes are gone; the machine and its disk are still ours."""
    data = event.data

    def restart(instance: Instance) -> Instance:
        return replace(
            instance,
            host=data["host"],
            port=data["port"],
            restart_marker=data["restart_marker"],
            running_at=event.at,
            prepared=False,
            restarts=instance.restarts + 1,
        )

    run = replace(run, restarts=run.restarts + 1)
    return _cut_off(_change(run, event, restart), event, disk_kept=True)


def _wiped(run: Run, event: Event) -> Run:
    """The same machine, and nothing on it: its life as another instance begins, and what it held
    is lost with this one."""
    data = event.data
    before = run.find_instance(data["instance"])
    after = Instance(
        id=data["successor"],
        provider=before.provider,
        offer=before.offer,
        usd_per_hour=before.price_usd_per_hour,
        mark=before.mark,
        intended_at=event.at,
        state="RUNNING",
        provider_id=before.provider_id,
        host=data["host"],
        port=data["port"],
        user=before.user,
        restart_marker=data["restart_marker"],
        created_at=before.created_at,
        running_at=event.at,
        restarts=before.restarts + 1,
        region=before.region,
        billing_unit_s=before.billing_unit_s,
        key_id=before.key_id,
    )
    run = _instance(
        run,
        event,
        lost=data["reason"],
        lost_at=event.at,
        state="GONE",
        gone_at=event.at,
        billing_unit_s=MICROSECOND_S,
    )
    return _cut_off(replace(run, instances=(*run.instances, after)), event)


def _running(run: Run, event: Event) -> Run:
    data = event.data
    return _instance(
        run,
        event,
        state="RUNNING",
        host=data["host"],
        port=data["port"],
        user=data["user"],
        restart_marker=data["restart_marker"],
        running_at=event.at,
    )


def _prepared(run: Run, event: Event) -> Run:
    run = replace(run, search=Search(first=len(run.instances)))
    return _instance(run, event, prepared=True, booted=True)


def _instance_lost(run: Run, event: Event) -> Run:
    reason = event.data["reason"]
    return _cut_off(_instance(run, event, lost=reason, lost_at=event.at, state="BROKEN"), event)


def _cut_off(run: Run, event: Event, *, disk_kept: bool = False) -> Run:
    """What the end of a box's processes means for the attempt that ran on it."""
    last = run.attempt
    if last is None or last.instance != event.data["instance"]:
        return run
    if run.outcome and run.outcome.state != "SUCCEEDED":
        return run
    if final_is_safe(run) or (disk_kept and final_of(run, last)):
        # Nothing more is to be made there, and what was made is here or comes from its disk.
        return _attempt(run, last.number, ended_at=last.ended_at or event.at, settled=True)
    if last.settled and not final_of(run, last):
        return run
    # Whatever the trainer had not brought home went down with the box, the final weights of a
    # trainer that had ended well too: the run is not over after all.
    run = _attempt(run, last.number, lost=True, ended_at=last.ended_at or event.at)
    return replace(run, outcome=None, draining_at=None, drained=False)


def _terminating(run: Run, event: Event) -> Run:
    return _instance(run, event, terminating=True)


def _released(run: Run, event: Event) -> Run:
    return _instance(run, event, released_at=event.at)


def _gone(run: Run, event: Event) -> Run:
    """`ended_at` is the first list without it: it ended then at the latest."""
    ended_at = event.data.get("ended_at")
    at = min(datetime.fromisoformat(ended_at), event.at) if ended_at else event.at
    return _instance(run, event, state="GONE", gone_at=at)


def _exhausted(run: Run, event: Event) -> Run:
    search = run.search
    again_at = datetime.fromisoformat(event.data["again_at"])
    began_at = search.began_at or event.at
    return replace(run, search=Search(len(run.instances), search.rounds + 1, began_at, again_at))


def _warned(run: Run, event: Event) -> Run:
    return replace(run, warned=True)


def _noted(run: Run, _: Event) -> Run:
    """For a person to read; what follows from it is told by other events."""
    return run


def _attempt_intended(run: Run, event: Event) -> Run:
    data = event.data
    source = Source(**data["resume"]) if data["resume"] else None
    attempt = Attempt(data["attempt"], data["instance"], source, intended_at=event.at)
    return replace(run, attempts=(*run.attempts, attempt))


def _attempt_started(run: Run, event: Event) -> Run:
    return _attempt(run, event.data["attempt"], started_at=event.at)


def _attempt_exited(run: Run, event: Event) -> Run:
    data = event.data
    return _attempt(
        run,
        data["attempt"],
        ended_at=event.at,
        rc=data["rc"],
        why=data["why"],
        message=data["message"],
    )


def _attempt_abandoned(run: Run, event: Event) -> Run:
    """It could not start from this checkpoint: the next one starts from another."""
    run = replace(run, unusable=(*run.unusable, event.data["digest"]))
    return _attempt(run, event.data["attempt"], lost=True, ended_at=event.at)


def _attempt_settled(run: Run, event: Event) -> Run:
    return _attempt(run, event.data["attempt"], settled=True)


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


def _looked(run: Run, event: Event) -> Run:
    return _instance(run, event, looked=True)


def _acked(run: Run, event: Event) -> Run:
    return _seal(run, event, acked=True)


def _checkpoint_failed(run: Run, event: Event) -> Run:
    what = "failed_stored" if event.data.get("where") == "store" else "failed"
    return _seal(run, event, **{what: event.data["reason"]})


def _drain_begun(run: Run, event: Event) -> Run:
    data = event.data
    outcome = Outcome(data["outcome"], data["reason"], data["code"])
    return replace(run, outcome=outcome, draining_at=event.at)


def _drain_ended(run: Run, event: Event) -> Run:
    run = replace(run, drained=True, missing=tuple(event.data["missing"]))
    if run.outcome and run.outcome.state == "SUCCEEDED" and not final_is_safe(run):
        lost = Outcome("FAILED", "the final weights did not arrive here", "integrity")
        return replace(run, outcome=lost)
    return run


def _finished(run: Run, event: Event) -> Run:
    return replace(run, finished_at=event.at)


def _instance(run: Run, event: Event, **changes: Any) -> Run:
    return _change(run, event, lambda each: replace(each, **changes))


def _change(run: Run, event: Event, change: Callable[[Instance], Instance]) -> Run:
    wanted = event.data["instance"]
    instances = tuple(change(each) if each.id == wanted else each for each in run.instances)
    return replace(run, instances=instances)


def _attempt(run: Run, number: int, **changes: Any) -> Run:
    attempts = tuple(
        replace(each, **changes) if each.number == number else each for each in run.attempts
    )
    return replace(run, attempts=attempts)


def _seal(run: Run, event: Event, **changes: Any) -> Run:
    wanted = (event.data["instance"], event.data["name"], event.data["generation"])
    seals = tuple(
        replace(each, **changes) if (each.instance, each.name, each.generation) == wanted else each
        for each in run.seals
    )
    return replace(run, seals=seals)


_STEPS: dict[str, Callable[[Run, Event], Run]] = {
    "planned": _planned,
    "requested.teardown": _teardown,
    "requested.fetch": _fetch_asked,
    "instance.intended": _intended,
    "instance.created": _created,
    "instance.refused": _refused,
    "instance.reappeared": _reappeared,
    "instance.priced": _priced,
    "instance.rekeyed": _rekeyed,
    "instance.moved": _moved,
    "instance.restarted": _restarted,
    "instance.wiped": _wiped,
    "instance.running": _running,
    "instance.prepared": _prepared,
    "instance.lost": _instance_lost,
    "instance.terminating": _terminating,
    "instance.released": _released,
    "instance.gone": _gone,
    "offers.exhausted": _exhausted,
    "budget.warned": _warned,
    "attempt.intended": _attempt_intended,
    "attempt.started": _attempt_started,
    "attempt.exited": _attempt_exited,
    "attempt.abandoned": _attempt_abandoned,
    "attempt.settled": _attempt_settled,
    "checkpoint.sealed": _sealed,
    "checkpoint.mirrored": _mirrored,
    "checkpoint.pushed": _pushed,
    "push.failed": _push_failed,
    "store.refused": _store_refused,
    "store.answered": _store_answered,
    "instance.looked": _looked,
    "checkpoint.measured": _measured,
    "checkpoint.pruned": _pruned,
    "mirror.paused": _mirror_paused,
    "mirror.resumed": _mirror_resumed,
    "disk.low": _disk_low,
    "disk.eased": _disk_eased,
    "checkpoint.acked": _acked,
    "checkpoint.failed": _checkpoint_failed,
    "deadman.fired": _noted,
    "deadman.held": _noted,
    "deadman.refused": _noted,
    "drain.begun": _drain_begun,
    "drain.ended": _drain_ended,
    "run.finished": _finished,
}
