"""A run: what every command reads and what `decide` thinks about. It is the fold of its events
(`fold.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from orchestrator.core.attempt import Attempt, Seal, Source
from orchestrator.core.instance import Instance, Rate, Refusal
from orchestrator.core.metrics import Metric
from orchestrator.core.phase import Handover, Phase, Waiting


class RunState(StrEnum):
    PLANNED = "PLANNED"
    PROVISIONING = "PROVISIONING"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    DRAINING = "DRAINING"
    WAITING = "WAITING"
    TERMINATING = "TERMINATING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
Verdict = Literal["SUCCEEDED", "FAILED", "CANCELLED"]


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
class Outcome:
    """How the run will end once everything is home and everything rented is gone."""

    state: Verdict
    reason: str
    code: str


@dataclass(frozen=True)
class Recovery:
    """How often one phase is picked up again."""

    host_loss: int = 10
    crash: int = 2


@dataclass(frozen=True)
class Limits:
    """What the plan allows: recoveries of this phase, and money and time for the whole run."""

    host_loss: int = 10
    crash: int = 2
    budget_usd: float | None = None
    budget_hours: float | None = None
    budget_usd_per_hour: float | None = None


@dataclass(frozen=True)
class Search:
    """The search for an instance, since one was last prepared: `first` is the first instance of
    this round through the offers; when all were refused, the next begins at `again_at`."""

    first: int = 0
    rounds: int = 0
    began_at: datetime | None = None
    again_at: datetime | None = None


@dataclass(frozen=True)
class Paused:
    """The mirror takes nothing now, and why; nothing is lost while its boxes keep what waits."""

    reason: str
    message: str
    at: datetime


@dataclass(frozen=True)
class DiskLow:
    """A disk that the next checkpoints do not fit on, or that fills up before the end."""

    free_bytes: int
    needed_bytes: int
    full_at: datetime | None = None


@dataclass(frozen=True)
class Run:
    """The state of a run after the event `seq`. With a `volume`, what one box sealed is on every
    later box of the run, and with a `volume_store` it can be fetched without a box. Boxes push
    what they seal to `also`; what they told to be there is in `pushed`, by digest. `pruned` are
    the digests that `checkpoints.keep` let go here; `metrics` what each checkpoint is worth, and
    `metric` which of them `best` means."""

    id: str
    name: str = ""
    folder: str = ""
    mirror: str = ""
    volume: str = ""
    volume_store: bool = False
    also: str = ""
    created_at: datetime | None = None
    seq: int = 0
    updated_at: datetime | None = None
    limits: Limits = field(default_factory=Limits)
    phases: tuple[Phase, ...] = ()
    instances: tuple[Instance, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    seals: tuple[Seal, ...] = ()
    mirrored: Mapping[str, str] = field(default_factory=dict)
    pushed: Mapping[str, str] = field(default_factory=dict)
    pushed_at: datetime | None = None
    push_trouble: str = ""
    never_pushed: tuple[str, ...] = ()
    store_trouble: str = ""
    pruned: tuple[str, ...] = ()
    metric: Metric | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    paused: Paused | None = None
    resumed_at: datetime | None = None
    disk_low: Mapping[str, DiskLow] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()
    outcome: Outcome | None = None
    draining_at: datetime | None = None
    drained: bool = False
    missing: tuple[str, ...] = ()
    teardown: str | None = None
    finished_at: datetime | None = None
    search: Search = field(default_factory=Search)
    warned: bool = False
    restarts: int = 0

    @property
    def state(self) -> RunState:
        if self.outcome and self.finished_at:
            return RunState(self.outcome.state)
        if self.outcome:
            return RunState.TERMINATING if self.drained else RunState.DRAINING
        attempt = self.attempt
        if attempt and attempt.started_at and attempt.live:
            return RunState.RUNNING
        if self.phase and self.phase.waiting:
            return RunState.WAITING
        if attempt or any(self._is_lost_now(instance) for instance in self.instances):
            return RunState.RECOVERING
        if any(instance.state == "RUNNING" and instance.usable for instance in self.instances):
            return RunState.PREPARING
        return RunState.PROVISIONING if self.instances else RunState.PLANNED

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def is_asking(self) -> bool:
        """Whether a person's answer is waited for, and would change something."""
        phase = self.phase
        is_open = phase is not None and phase.waiting is not None and phase.approved is None
        return is_open and self.outcome is None and self.teardown is None

    @property
    def reason(self) -> str:
        return self.outcome.reason if self.outcome else ""

    @property
    def instance(self) -> Instance | None:
        """The instance the run works on now."""
        usable = [instance for instance in self.instances if instance.usable]
        return usable[-1] if usable else None

    @property
    def phase(self) -> Phase | None:
        """The phase that has begun last."""
        return self.phases[-1] if self.phases else None

    @property
    def serial(self) -> int:
        """Its place among those that have begun."""
        return max(0, len(self.phases) - 1)

    @property
    def phase_attempts(self) -> tuple[Attempt, ...]:
        return tuple(each for each in self.attempts if each.phase == self.serial)

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt of this phase."""
        mine = self.phase_attempts
        return mine[-1] if mine else None

    @property
    def still_billing(self) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if instance.may_bill)

    def find_instance(self, instance_id: str) -> Instance:
        return next(instance for instance in self.instances if instance.id == instance_id)

    @property
    def tried(self) -> tuple[Instance, ...]:
        """What was asked for in this round through the offers."""
        return self.instances[self.search.first :]

    def spent_usd(self, now: datetime) -> float:
        return sum(each.cost_usd(now) for each in self.instances)

    def attempt_costs(self, now: datetime) -> tuple[tuple[int, float], ...]:
        """Dollars by attempt number, 0 for what no attempt used: an attempt pays for its box from
        the one before it there (the first, from the box's birth) to the next."""
        costs = {0: 0.0, **{each.number: 0.0 for each in self.attempts}}
        for instance in self.instances:
            mine = [each for each in self.attempts if each.instance == instance.id]
            numbers = [each.number for each in mine] or [0]
            ends = [each.intended_at for each in mine[1:]] + [instance.ends_at(now)]
            start, total = instance.intended_at, instance.cost_usd(now)
            for number, end in zip(numbers, ends, strict=True):
                part = total if number == numbers[-1] else instance.cost_between(start, end)
                costs[number] += part
                start, total = end, total - part
        return tuple(sorted(costs.items()))

    def rented_hours(self, now: datetime) -> float:
        return sum(each.hours(now) for each in self.instances)

    def _is_lost_now(self, instance: Instance) -> bool:
        began_at = self.phase.began_at if self.phase else None
        at = instance.lost_at
        return bool(instance.lost) and (began_at is None or at is None or at >= began_at)


def final_of(run: Run, attempt: Attempt) -> Seal | None:
    """The final weights that this attempt left, as its box sealed them last."""
    finals = [seal for seal in run.seals if seal.final and seal.attempt == attempt.number]
    return finals[-1] if finals else None


def final_is_safe(run: Run) -> bool:
    """Whether the final weights of the last attempt are mirrored or in S3; those of an earlier
    one, that crashed, are not what the run was for."""
    final = final_of(run, run.attempt) if run.attempt else None
    return final is not None and (final.digest in run.mirrored or is_pushed(run, final))


def goal_of(run: Run, attempt: Attempt) -> Seal | None:
    """What this attempt left of what its phase is for: a checkpoint at or past the step where it
    is stopped, else the final weights."""
    until = run.phase.until_step if run.phase else None
    reached = [
        seal
        for seal in run.seals
        if seal.attempt == attempt.number and until is not None and (seal.step or 0) >= until
    ]
    return reached[-1] if reached else final_of(run, attempt)


def goal_is_safe(run: Run) -> bool:
    """Whether what the phase is for is mirrored or in S3. Where it is stopped at a step, an earlier
    attempt's checkpoint is as good; of final weights only the last attempt's count."""
    if final_is_safe(run):
        return True
    until = run.phase.until_step if run.phase else None
    if until is None:
        return False
    goals = [goal for each in run.phase_attempts if (goal := goal_of(run, each))]
    reached = [goal for goal in goals if (goal.step or 0) >= until]
    return any(goal.digest in run.mirrored or is_pushed(run, goal) for goal in reached)


def is_pushed(run: Run, seal: Seal) -> bool:
    """Whether it is in S3, as far as is known as it was sealed."""
    return seal.digest in run.pushed and not seal.failed_stored


__all__ = [
    "TERMINAL",
    "Attempt",
    "DiskLow",
    "Event",
    "Handover",
    "Instance",
    "Lease",
    "Limits",
    "Outcome",
    "Paused",
    "Phase",
    "Rate",
    "Recovery",
    "Refusal",
    "Run",
    "RunState",
    "Seal",
    "Search",
    "Source",
    "Waiting",
    "final_is_safe",
    "final_of",
    "goal_is_safe",
    "goal_of",
    "is_pushed",
]
