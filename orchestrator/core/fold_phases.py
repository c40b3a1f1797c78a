"""What the events of phases, gates and health rules change in a run: a part of `fold.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.core.changes import Step, change_phase
from orchestrator.core.endings import HANG_RULES
from orchestrator.core.metrics import Metric
from orchestrator.core.run import Event, Instance, Phase, Run, Search, Source, Waiting


def _phase_begun(run: Run, event: Event) -> Run:
    """What was rented for the phase before is given back, but for `instance`, which is prepared
    anew. Its search and its recoveries begin at nothing."""
    data = event.data
    phase = Phase(
        index=data["index"],
        name=data["phase"],
        key=data["key"],
        began_at=event.at,
        mirror=data.get("mirror", ""),
        metric=Metric(**data["metric"]) if data.get("metric") else None,
        start=Source(**data["start"]) if data.get("start") else None,
        how=data.get("how", ""),
        until_step=data.get("until_step"),
    )
    limits = replace(run.limits, host_loss=data["host_loss"], crash=data["crash"])
    if run.phases:
        instances = tuple(_handed_on(each, data) for each in run.instances)
        run = replace(run, instances=instances, restarts=0)
        run = replace(run, search=Search(first=len(run.instances)))
    return replace(run, phases=(*run.phases, phase), limits=limits)


def _handed_on(instance: Instance, data: Any) -> Instance:
    if not instance.usable:
        return instance
    if instance.id == data.get("instance"):
        return replace(instance, prepared=False)
    return replace(instance, retired=f"phase {data['phase']} does not need it")


def _phase_reached(run: Run, event: Event) -> Run:
    return change_phase(run, reached_at=event.at)


def _phase_extended(run: Run, event: Event) -> Run:
    return change_phase(run, until_step=event.data["until_step"], reached_at=None)


def _phase_held(run: Run, event: Event) -> Run:
    data = event.data
    waiting = Waiting(data["why"], data["reason"], event.at, tuple(data.get("rules", ())))
    return change_phase(run, waiting=waiting, approved=None)


def _phase_ended(run: Run, event: Event) -> Run:
    return change_phase(run, ended=event.data["verdict"], waiting=None)


def _judged(run: Run, event: Event) -> Run:
    data = event.data
    return change_phase(
        run,
        verdict=data["verdict"],
        reasons=tuple(data["reasons"]),
        extends_to=data.get("until_step"),
        judged_key=data.get("key", ""),
    )


def _flagged(run: Run, event: Event) -> Run:
    data = event.data
    told = run.phase.told if run.phase else ()
    return change_phase(run, told=(*told, (data["rule"], data["action"])))


def _approve(run: Run, event: Event) -> Run:
    """A yes or a no is about what the person was asked: without a question it is about nothing."""
    data, phase = event.data, run.phase
    waiting = phase.waiting if phase else None
    if phase is None or waiting is None or data.get("phase", phase.name) != phase.name:
        return run
    by, yes = data.get("by", ""), data["yes"] is True
    if yes and waiting.why == "flag":
        # A hang that comes again is another one, and nobody has spoken of it.
        rules = [rule for rule in waiting.rules if rule not in HANG_RULES]
        run = change_phase(run, waiting=None, waived=(*phase.waived, *rules), approved_by=by)
        return _pardoned(run)
    return change_phase(run, approved=yes, approved_by=by)


def _pardoned(run: Run) -> Run:
    """What the newest attempt ended of is tried again once."""
    last = run.attempt
    if last is None:
        return run
    return replace(
        run,
        attempts=tuple(
            replace(each, pardoned=True) if each is last else each for each in run.attempts
        ),
    )


def _of_now(step: Step) -> Step:
    """What is told of another phase than the one that runs changes nothing."""

    def fold(run: Run, event: Event) -> Run:
        is_now = run.phase is not None and event.data["phase"] == run.phase.name
        return step(run, event) if is_now else run

    return fold


PHASE_STEPS: dict[str, Step] = {
    "requested.approve": _approve,
    "phase.begun": _phase_begun,
    "phase.reached": _of_now(_phase_reached),
    "phase.extended": _of_now(_phase_extended),
    "phase.held": _of_now(_phase_held),
    "phase.ended": _of_now(_phase_ended),
    "gate.judged": _of_now(_judged),
    "health.flagged": _of_now(_flagged),
}
