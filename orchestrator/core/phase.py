"""A phase of a run that has begun, and what a person is asked in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from orchestrator.core.attempt import Source
from orchestrator.core.metrics import Metric

Handover = Literal["resume", "path"]


@dataclass(frozen=True)
class Waiting:
    """A person is asked: what a gate could not decide or wants approved (`gate`), or whether to go
    on in spite of the health rules `rules` (`flag`)."""

    why: Literal["gate", "flag"]
    reason: str
    at: datetime
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phase:
    """One phase that has begun; a phase that begins anew is another one. `index` is its place in
    the plan. `start` is the checkpoint that it starts from, by way of `how`. Its trainer is
    stopped at `until_step`. `waived` are the rules that a person said to go on in spite of, `told`
    what health rules have asked for, as rule and action. `ended` is the verdict it ended with."""

    index: int
    name: str
    key: str
    began_at: datetime
    mirror: str = ""
    metric: Metric | None = None
    start: Source | None = None
    how: str = ""
    until_step: int | None = None
    reached_at: datetime | None = None
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    extends_to: int | None = None
    judged_key: str = ""
    waiting: Waiting | None = None
    approved: bool | None = None
    approved_by: str = ""
    waived: tuple[str, ...] = ()
    told: tuple[tuple[str, str], ...] = ()
    ended: str = ""

    @property
    def start_step(self) -> int:
        """The trainer's step before its first one."""
        return self.start.step if self.start and self.how == "resume" else 0
