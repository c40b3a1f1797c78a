"""A run is the fold of its events: the values, and the one function that folds.

`Run` is what every command reads and what `decide` thinks about. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal


class RunState(StrEnum):
    PLANNED = "PLANNED"
    PROVISIONING = "PROVISIONING"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    DRAINING = "DRAINING"
    TERMINATING = "TERMINATING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
Verdict = Literal["SUCCEEDED", "FAILED", "CANCELLED"]
InstanceWord = Literal["PENDING", "RUNNING", "BROKEN", "GONE"]


@dataclass(frozen=True)
class Event:
    """One line of a run's history. `epoch` is None for a request, which anyone may make."""

    run: str
    seq: int
    at: datetime
    kind: str
    epoch: int | None
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Lease:
    """The right to act on a run; every append by its holder carries `epoch`."""

    run: str
    epoch: int


@dataclass(frozen=True)
class Instance:
    """One rented machine, from the intent to rent it to the proof that it is gone."""

    id: str
    provider: str
    offer: str
    usd_per_hour: float
    mark: str
    intended_at: datetime
    state: InstanceWord = "PENDING"
    provider_id: str | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    restart_marker: str = ""
    created_at: datetime | None = None
    running_at: datetime | None = None
    prepared: bool = False
    lost: str | None = None
    refused: str | None = None
    terminating: bool = False
    gone_at: datetime | None = None

    @property
    def usable(self) -> bool:
        """Ours to work with: not lost, refused, being ended or gone."""
        return not (self.lost or self.refused or self.terminating or self.gone_at)

    @property
    def may_bill(self) -> bool:
        return self.gone_at is None and self.refused is None

    def hours(self, now: datetime) -> float:
        if self.refused:
            return 0.0
        return ((self.gone_at or now) - self.intended_at).total_seconds() / 3600


@dataclass(frozen=True)
class Source:
    """The checkpoint that an attempt resumes from."""

    name: str
    step: int
    digest: str


@dataclass(frozen=True)
class Attempt:
    """One start of the trainer on one instance."""

    number: int
    instance: str
    resume: Source | None
    intended_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    rc: int | None = None
    why: str = ""
    message: str = ""
    settled: bool = False
    lost: bool = False

    @property
    def live(self) -> bool:
        return self.ended_at is None


@dataclass(frozen=True)
class Seal:
    """A complete checkpoint that a box reported."""

    instance: str
    attempt: int
    name: str
    generation: int
    step: int | None
    max_steps: int | None
    size_bytes: int
    digest: str
    final: bool
    sealed_at: datetime
    acked: bool = False
    failed: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How the run will end once everything is home and everything rented is gone."""

    state: Verdict
    reason: str
    code: str


@dataclass(frozen=True)
class Limits:
    """What the plan allows: recoveries, and money and time for the whole run."""

    host_loss: int = 10
    crash: int = 2
    budget_usd: float | None = None
    budget_hours: float | None = None


@dataclass(frozen=True)
class Run:
    """The state of a run after the event `seq`."""

    id: str
    name: str = ""
    folder: str = ""
    mirror: str = ""
    created_at: datetime | None = None
    seq: int = 0
    updated_at: datetime | None = None
    limits: Limits = field(default_factory=Limits)
    instances: tuple[Instance, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    seals: tuple[Seal, ...] = ()
    mirrored: Mapping[str, str] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()
    outcome: Outcome | None = None
    draining_at: datetime | None = None
    drained: bool = False
    missing: tuple[str, ...] = ()
    teardown: str | None = None
    finished_at: datetime | None = None

    @property
    def state(self) -> RunState:
        if self.outcome and self.finished_at:
            return RunState(self.outcome.state)
        if self.outcome:
            return RunState.TERMINATING if self.drained else RunState.DRAINING
        if self.attempts and self.attempts[-1].started_at and self.attempts[-1].live:
            return RunState.RUNNING
        if self.attempts or any(instance.lost for instance in self.instances):
            return RunState.RECOVERING
        if any(instance.state == "RUNNING" and instance.usable for instance in self.instances):
            return RunState.PREPARING
        return RunState.PROVISIONING if self.instances else RunState.PLANNED

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def reason(self) -> str:
        return self.outcome.reason if self.outcome else ""

    @property
    def instance(self) -> Instance | None:
        """The instance the run works on now."""
        usable = [instance for instance in self.instances if instance.usable]
        return usable[-1] if usable else None

    @property
    def attempt(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def still_billing(self) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if instance.may_bill)

    def find_instance(self, instance_id: str) -> Instance:
        return next(instance for instance in self.instances if instance.id == instance_id)

    def spent_usd(self, now: datetime) -> float:
        return sum(each.hours(now) * each.usd_per_hour for each in self.instances)

    def rented_hours(self, now: datetime) -> float:
        return sum(each.hours(now) for each in self.instances)


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
    )
    return replace(
        run,
        name=data["name"],
        folder=data["folder"],
        mirror=data["mirror"],
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
    )
    return replace(run, instances=(*run.instances, instance))


def _created(run: Run, event: Event) -> Run:
    return _instance(run, event, provider_id=event.data["provider_id"], created_at=event.at)


def _refused(run: Run, event: Event) -> Run:
    why = f"{event.data['why']}: {event.data['message']}"
    return _instance(run, event, refused=why, state="GONE", gone_at=event.at)


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
    return _instance(run, event, prepared=True)


def _instance_lost(run: Run, event: Event) -> Run:
    run = _instance(run, event, lost=event.data["reason"], state="BROKEN")
    last = run.attempt
    if last is None or last.instance != event.data["instance"]:
        return run
    if run.outcome and run.outcome.state != "SUCCEEDED":
        return run
    if final_is_here(run) or (last.settled and not final_of(run, last)):
        return run
    # Whatever the trainer had not brought home went down with the box, the final weights of a
    # trainer that had ended well too: the run is not over after all.
    run = _attempt(run, last.number, lost=True, ended_at=last.ended_at or event.at)
    return replace(run, outcome=None, draining_at=None, drained=False)


def _terminating(run: Run, event: Event) -> Run:
    return _instance(run, event, terminating=True)


def _gone(run: Run, event: Event) -> Run:
    return _instance(run, event, state="GONE", gone_at=event.at)


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
    return replace(run, seals=(*run.seals, seal))


def _mirrored(run: Run, event: Event) -> Run:
    return replace(run, mirrored={**run.mirrored, event.data["digest"]: event.data["path"]})


def _acked(run: Run, event: Event) -> Run:
    return _seal(run, event, acked=True)


def _checkpoint_failed(run: Run, event: Event) -> Run:
    return _seal(run, event, failed=event.data["reason"])


def _drain_begun(run: Run, event: Event) -> Run:
    data = event.data
    outcome = Outcome(data["outcome"], data["reason"], data["code"])
    return replace(run, outcome=outcome, draining_at=event.at)


def _drain_ended(run: Run, event: Event) -> Run:
    run = replace(run, drained=True, missing=tuple(event.data["missing"]))
    if run.outcome and run.outcome.state == "SUCCEEDED" and not final_is_here(run):
        lost = Outcome("FAILED", "the final weights did not arrive here", "integrity")
        return replace(run, outcome=lost)
    return run


def _finished(run: Run, event: Event) -> Run:
    return replace(run, finished_at=event.at)


def final_of(run: Run, attempt: Attempt) -> Seal | None:
    """The final weights that this attempt left, as its box sealed them last."""
    finals = [seal for seal in run.seals if seal.final and seal.attempt == attempt.number]
    return finals[-1] if finals else None


def final_is_here(run: Run) -> bool:
    """Whether the final weights of the last attempt are mirrored; those of an earlier one, that
    crashed, are not what the run was for."""
    final = final_of(run, run.attempt) if run.attempt else None
    return final is not None and final.digest in run.mirrored


def _instance(run: Run, event: Event, **changes: Any) -> Run:
    wanted = event.data["instance"]
    instances = tuple(
        replace(each, **changes) if each.id == wanted else each for each in run.instances
    )
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
    "instance.intended": _intended,
    "instance.created": _created,
    "instance.refused": _refused,
    "instance.running": _running,
    "instance.prepared": _prepared,
    "instance.lost": _instance_lost,
    "instance.terminating": _terminating,
    "instance.gone": _gone,
    "attempt.intended": _attempt_intended,
    "attempt.started": _attempt_started,
    "attempt.exited": _attempt_exited,
    "attempt.abandoned": _attempt_abandoned,
    "attempt.settled": _attempt_settled,
    "checkpoint.sealed": _sealed,
    "checkpoint.mirrored": _mirrored,
    "checkpoint.acked": _acked,
    "checkpoint.failed": _checkpoint_failed,
    "drain.begun": _drain_begun,
    "drain.ended": _drain_ended,
    "run.finished": _finished,
}
