"""The one function that folds an event into a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.core.changes import Step, change_attempt, change_phase
from orchestrator.core.fold_checkpoints import CHECKPOINT_STEPS
from orchestrator.core.fold_instances import INSTANCE_STEPS
from orchestrator.core.fold_phases import PHASE_STEPS
from orchestrator.core.metrics import Metric
from orchestrator.core.run import (
    Attempt,
    Event,
    Limits,
    Outcome,
    Run,
    Source,
    final_of,
    goal_is_safe,
)


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


def _warned(run: Run, event: Event) -> Run:
    return replace(run, warned=True)


def _noted(run: Run, _: Event) -> Run:
    """For a person to read; what follows from it is told by other events."""
    return run


def _attempt_intended(run: Run, event: Event) -> Run:
    data = event.data
    source = Source(**data["resume"]) if data["resume"] else None
    attempt = Attempt(
        data["attempt"],
        data["instance"],
        source,
        intended_at=event.at,
        phase=run.serial,
        metrics_from=data.get("metrics_from", 0),
    )
    return change_phase(replace(run, attempts=(*run.attempts, attempt)), reached_at=None)


def _attempt_started(run: Run, event: Event) -> Run:
    return change_attempt(run, event.data["attempt"], started_at=event.at)


def _attempt_stopping(run: Run, event: Event) -> Run:
    data = event.data
    return change_attempt(
        run,
        data["attempt"],
        stopping_at=event.at,
        stopping_for=data["why"],
        stopping_step=data.get("step"),
    )


def _attempt_exited(run: Run, event: Event) -> Run:
    data = event.data
    return change_attempt(
        run,
        data["attempt"],
        ended_at=event.at,
        rc=data["rc"],
        why=data["why"],
        message=data["message"],
        kind=data.get("kind", ""),
        reaction=data.get("reaction", ""),
        advice=data.get("advice", ""),
    )


def _attempt_dumped(run: Run, event: Event) -> Run:
    return change_attempt(run, event.data["attempt"], dumped=event.data["words"])


def _attempt_abandoned(run: Run, event: Event) -> Run:
    """It could not start from this checkpoint: the next one starts from another."""
    run = replace(run, unusable=(*run.unusable, event.data["digest"]))
    return change_attempt(run, event.data["attempt"], lost=True, ended_at=event.at)


def _attempt_settled(run: Run, event: Event) -> Run:
    return change_attempt(run, event.data["attempt"], settled=True)


def _drain_begun(run: Run, event: Event) -> Run:
    data = event.data
    outcome = Outcome(data["outcome"], data["reason"], data["code"])
    return replace(run, outcome=outcome, draining_at=event.at)


def _drain_ended(run: Run, event: Event) -> Run:
    run = replace(run, drained=True, missing=tuple(event.data["missing"]))
    if run.outcome and run.outcome.state == "SUCCEEDED" and not goal_is_safe(run):
        what = "final weights" if run.attempt and final_of(run, run.attempt) else "last checkpoint"
        lost = Outcome("FAILED", f"the {what} did not arrive here", "integrity")
        return replace(run, outcome=lost)
    return run


def _finished(run: Run, event: Event) -> Run:
    return replace(run, finished_at=event.at)


_STEPS: dict[str, Step] = {
    **INSTANCE_STEPS,
    **CHECKPOINT_STEPS,
    **PHASE_STEPS,
    "planned": _planned,
    "requested.teardown": _teardown,
    "budget.warned": _warned,
    "attempt.intended": _attempt_intended,
    "attempt.started": _attempt_started,
    "attempt.stopping": _attempt_stopping,
    "attempt.exited": _attempt_exited,
    "attempt.dumped": _attempt_dumped,
    "attempt.abandoned": _attempt_abandoned,
    "attempt.settled": _attempt_settled,
    "deadman.fired": _noted,
    "deadman.held": _noted,
    "deadman.refused": _noted,
    "drain.begun": _drain_begun,
    "drain.ended": _drain_ended,
    "run.finished": _finished,
}
