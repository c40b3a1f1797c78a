"""What the events of instances change in a run: a part of `fold.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.core.changes import Step, change_attempt, change_instance, change_with
from orchestrator.core.run import (
    Event,
    Instance,
    Rate,
    Refusal,
    Run,
    Search,
    goal_is_safe,
    goal_of,
)

# What one life of a machine is rounded to when the next begins at once.
MICROSECOND_S = 1e-6


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
    return change_instance(run, event, provider_id=event.data["provider_id"], created_at=event.at)


def _refused(run: Run, event: Event) -> Run:
    data = event.data
    refusal = Refusal(data["why"], data["message"], data.get("provider_wide", False))
    return change_instance(run, event, refused=refusal, state="GONE", gone_at=event.at)


def _reappeared(run: Run, event: Event) -> Run:
    """It was taken for gone or never rented, and the provider lists it: it bills, so it is ended.
    That costs no recovery: the run may have gone on without it."""
    data = event.data
    return change_instance(
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
    return change_with(run, event, lambda each: replace(each, rates=(*each.rates, rate)))


def _rekeyed(run: Run, event: Event) -> Run:
    return change_instance(run, event, key_id=event.data["key_id"])


def _moved(run: Run, event: Event) -> Run:
    return change_instance(run, event, host=event.data["host"], port=event.data["port"])


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
    return _cut_off(change_with(run, event, restart), event, disk_kept=True)


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
    run = change_instance(
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
    return change_instance(
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
    return change_instance(run, event, prepared=True, booted=True)


def _retired(run: Run, event: Event) -> Run:
    return change_instance(run, event, retired=event.data["reason"])


def _instance_lost(run: Run, event: Event) -> Run:
    reason = event.data["reason"]
    return _cut_off(
        change_instance(run, event, lost=reason, lost_at=event.at, state="BROKEN"), event
    )


def _cut_off(run: Run, event: Event, *, disk_kept: bool = False) -> Run:
    """What the end of a box's processes means for the attempt that ran on it."""
    last = run.attempt
    if last is None or last.instance != event.data["instance"]:
        return run
    if run.outcome and run.outcome.state != "SUCCEEDED":
        return run
    if goal_is_safe(run) or (disk_kept and goal_of(run, last)):
        # Nothing more is to be made there, and what was made is here or comes from its disk.
        return change_attempt(run, last.number, ended_at=last.ended_at or event.at, settled=True)
    if last.settled and not goal_of(run, last):
        return run
    # Whatever the trainer had not brought home went down with the box, the final weights of a
    # trainer that had ended well too: the run is not over after all.
    run = change_attempt(run, last.number, lost=True, ended_at=last.ended_at or event.at)
    return replace(run, outcome=None, draining_at=None, drained=False)


def _terminating(run: Run, event: Event) -> Run:
    return change_instance(run, event, terminating=True)


def _released(run: Run, event: Event) -> Run:
    return change_instance(run, event, released_at=event.at)


def _gone(run: Run, event: Event) -> Run:
    """`ended_at` is the first list without it: it ended then at the latest."""
    ended_at = event.data.get("ended_at")
    at = min(datetime.fromisoformat(ended_at), event.at) if ended_at else event.at
    return change_instance(run, event, state="GONE", gone_at=at)


def _exhausted(run: Run, event: Event) -> Run:
    search = run.search
    again_at = datetime.fromisoformat(event.data["again_at"])
    began_at = search.began_at or event.at
    return replace(run, search=Search(len(run.instances), search.rounds + 1, began_at, again_at))


def _looked(run: Run, event: Event) -> Run:
    return change_instance(run, event, looked=True)


INSTANCE_STEPS: dict[str, Step] = {
    "instance.retired": _retired,
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
    "instance.looked": _looked,
}
