"""Which checkpoint comes home next, and which the box is told about: one of each at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.core.decide import missing_here
from orchestrator.core.run import Run, Seal
from orchestrator.ports import Tasks

ASSUMED_BYTES_PER_S = 20e6
LEAST_DRAIN_S = 30.0


class Transfers:
    """The newest first, the final weights before all: what a resume needs is here soonest."""

    def __init__(self) -> None:
        self._fetching: Seal | None = None
        self._acking: tuple[Seal, ...] = ()
        self._received = 0
        self.moving_at: datetime | None = None

    def next(self, run: Run, instance: str, busy: frozenset[str]) -> Seal | None:
        if "fetch:" in busy:
            return None
        waiting = [seal for seal in missing_here(run) if seal.instance == instance]
        if not waiting:
            return None
        self._fetching = max(waiting, key=lambda seal: (seal.final, seal.step or 0))
        self._received = 0
        return self._fetching

    def to_acknowledge(self, run: Run, instance: str, busy: frozenset[str]) -> tuple[Seal, ...]:
        if "ack:" in busy:
            return ()
        self._acking = tuple(
            seal
            for seal in run.seals
            if seal.instance == instance and not seal.acked and seal.digest in run.mirrored
        )
        return self._acking

    def moved(self, reports: Sequence[int], now: datetime) -> None:
        if reports:
            self._received = reports[-1]
            self.moving_at = now

    def done(self) -> Seal:
        return self._ended()

    def failed(self) -> Seal:
        return self._ended()

    def acknowledged(self) -> tuple[Seal, ...]:
        acked, self._acking = self._acking, ()
        return acked

    def cancel(self, tasks: Tasks, run: str, instance: str) -> None:
        if self._fetching and self._fetching.instance == instance:
            tasks.cancel(f"{run}/fetch:")

    def expected_s(self, run: Run) -> float:
        """How long a drain would take now: what is missing at an assumed rate, and a moment."""
        missing = sum(seal.size_bytes for seal in missing_here(run))
        return LEAST_DRAIN_S + missing / ASSUMED_BYTES_PER_S

    def picture(self) -> Mapping[str, Any] | None:
        seal = self._fetching
        if seal is None:
            return None
        return {"name": seal.name, "received": self._received, "size_bytes": seal.size_bytes}

    def _ended(self) -> Seal:
        seal, self._fetching = self._fetching, None
        if seal is None:
            raise RuntimeError("a transfer ended that was not begun")
        return seal
