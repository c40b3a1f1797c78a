"""What `decide` looks at and what it answers: one observation, one action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from orchestrator.core.offer import BootPhase, Offer
from orchestrator.core.run import Outcome, Source

if TYPE_CHECKING:  # a command that only reads loads no health rule
    from orchestrator.core.gate import Decision
    from orchestrator.core.health.judge import Finding

# "restarted": the box's processes are gone and its disk was kept; "wiped": the disk was not.
Presence = Literal["present", "broken", "gone", "unknown", "restarted", "wiped"]


@dataclass(frozen=True)
class Deadlines:
    """How long each wait may last, in seconds. Nothing waits for ever."""

    boot_s: float = 1800.0
    access_s: float = 300.0
    prepare_s: float = 7200.0
    start_s: float = 600.0
    settle_s: float = 600.0
    stop_grace_s: float = 120.0
    drain_s: float = 7200.0
    drain_most_s: float = 24 * 3600.0
    push_s: float = 600.0
    look_s: float = 120.0
    silent_s: float = 1800.0
    deaf_s: float = 3600.0
    capacity_s: float = 6 * 3600.0
    save_s: float = 4 * 3600.0
    save_grace_s: float = 1800.0
    approve_s: float = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Boot:
    """How far an instance has booted, since when, and how long that may take."""

    phase: BootPhase
    since: datetime
    limit_s: float
    detail: str = ""


@dataclass(frozen=True)
class Seen:
    """One observation.

    `presence` is the provider's newest word about each instance: "unknown" when it has not
    been asked since, or could not answer, and UNKNOWN is never GONE. `silent` says since when a
    box has not been heard. `busy` are the keys of running tasks, `waiting` those that may not
    be tried again yet, `gave_up` those that no retry will help. `ended` are the instances whose
    terminate call has returned to this process. `moving_at` is when a transfer last gained bytes,
    `watching_since` when this process began to look: what stood still before is nobody's fault.
    `step` is the last step heard of this phase's trainer, `gate` what its gate says now, `flags`
    what health rules ask for now.
    """

    presence: Mapping[str, Presence] = field(default_factory=dict)
    agent_alive: bool | None = None
    silent: Mapping[str, datetime] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    gave_up: Mapping[str, str] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()
    moving_at: datetime | None = None
    watching_since: datetime | None = None
    expected_drain_s: float = 60.0
    boot: Mapping[str, Boot] = field(default_factory=dict)
    reached: frozenset[str] = frozenset()
    step: int | None = None
    gate: Decision | None = None
    flags: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Wait:
    why: str


@dataclass(frozen=True)
class Create:
    """Rent `offer`: each try is an instance of its own, with its own mark."""

    offer: Offer


@dataclass(frozen=True)
class Absent:
    """The provider's list proves that a create without an answer rented nothing."""

    instance: str


@dataclass(frozen=True)
class LookAgain:
    """No offer could be rented: ask all of them once more at `at`."""

    at: datetime


@dataclass(frozen=True)
class Restarted:
    """The box's processes are gone, and the provider says so: prepare it again."""

    instance: str


@dataclass(frozen=True)
class Warn:
    """Tell, once, that the budget is nearly spent."""

    share: float


@dataclass(frozen=True)
class Prepare:
    instance: str


@dataclass(frozen=True)
class Start:
    """Start the trainer. `attempt` names an intent that is already on record."""

    instance: str
    resume: Source | None
    attempt: int | None = None


@dataclass(frozen=True)
class Resume:
    """Give this instance up as lost; the next steps resume elsewhere."""

    instance: str
    reason: str


@dataclass(frozen=True)
class Stop:
    attempt: int
    signal: Literal["TERM", "KILL"]


@dataclass(frozen=True)
class Halt:
    """Put on record that the trainer is stopped before its end; the next steps stop it."""

    attempt: int
    why: Literal["steps", "flag", "hang"]
    step: int | None = None


@dataclass(frozen=True)
class Dump:
    """Take down what the trainer's processes are doing, before they are ended."""

    attempt: int


@dataclass(frozen=True)
class Begin:
    """Begin the phase `index` of the plan from the checkpoint `start`. The box `keep` goes on to
    it; every other one is given back."""

    index: int
    start: Source | None = None
    keep: str | None = None


@dataclass(frozen=True)
class Advance:
    """The phase has ended and what follows may begin."""

    verdict: str


@dataclass(frozen=True)
class Reached:
    """The trainer has made the step where it is stopped, and has to save first."""

    step: int


@dataclass(frozen=True)
class Extend:
    """The gate could not tell: the same phase goes on to this step."""

    until_step: int


@dataclass(frozen=True)
class AskApproval:
    """A person has to say whether the run goes on."""

    why: Literal["gate", "flag"]
    reason: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retire:
    """Give a healthy instance back: nobody needs it now."""

    instance: str
    reason: str


@dataclass(frozen=True)
class Drain:
    outcome: Outcome


@dataclass(frozen=True)
class Drained:
    """The drain is over; `why` says why what is `missing` is waited for no longer."""

    missing: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True)
class Terminate:
    instance: str


@dataclass(frozen=True)
class Gone:
    """The provider's list proves that the instance does not exist any more."""

    instance: str


@dataclass(frozen=True)
class Finish:
    pass


Action = (
    Wait
    | Create
    | Absent
    | LookAgain
    | Prepare
    | Start
    | Resume
    | Restarted
    | Stop
    | Halt
    | Dump
    | Begin
    | Advance
    | Reached
    | Extend
    | AskApproval
    | Retire
    | Warn
    | Drain
    | Drained
    | Terminate
    | Gone
    | Finish
)
