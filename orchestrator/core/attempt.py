"""One start of a trainer, and the checkpoints that it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Source:
    """The checkpoint that an attempt resumes from."""

    name: str
    step: int
    digest: str


@dataclass(frozen=True)
class Attempt:
    """One start of the trainer on one instance. `phase` is its phase's place in `Run.phases`.

    `stopping_at` is when it was decided to stop it before its end: at a step (`steps`), since a
    health rule asks a person (`flag`), or because it hangs (`hang`). `dumped` says what was taken
    down of a trainer that hangs. `kind` is the class of error that it ended of, and `reaction`
    what is done about that class; a person said to go on all the same when it is `pardoned`.
    `metrics_from` is where its lines begin in what its box told of metrics."""

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
    phase: int = 0
    stopping_at: datetime | None = None
    stopping_for: str = ""
    stopping_step: int | None = None
    metrics_from: int = 0
    dumped: str = ""
    kind: str = ""
    reaction: str = ""
    advice: str = ""
    pardoned: bool = False

    @property
    def live(self) -> bool:
        return self.ended_at is None


@dataclass(frozen=True)
class Seal:
    """A complete checkpoint that a box reported. `failed` says why its box is not asked for it
    any more, `failed_stored` the same of the store that has it: other bytes than were sealed.
    `resumes` is False where it is good for a warm start alone."""

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
    failed_stored: str | None = None
    resumes: bool = True
