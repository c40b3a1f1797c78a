"""Which checkpoint comes home next, and which the box is told about: one of each at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.core.holdings import is_on, missing_here
from orchestrator.core.run import Run, Seal

ASSUMED_BYTES_PER_S = 20e6
LEAST_DRAIN_S = 30.0


def fetch_key(seal: Seal) -> str:
    """A task of its own for each seal, so that one that fails does not hold up the others."""
    return f"fetch:{seal.instance}/{seal.name}.{seal.generation}"


class Transfers:
    """The newest first, the final weights before all: what a resume needs is here soonest."""

    def __init__(self) -> None:
        self._fetching: dict[str, Seal] = {}
        self._most: dict[str, int] = {}
        self._bad: dict[str, int] = {}
        self._last: tuple[str, int] | None = None
        self.moving_at: datetime | None = None

    def next(self, run: Run, instance: str, busy: frozenset[str]) -> Seal | None:
        """The seal to fetch now; None while one is on its way or all that is left waits."""
        if self._fetching:
            return None
        waiting = [
            seal
            for seal in missing_here(run)
            if is_on(run, seal, instance) and fetch_key(seal) not in busy
        ]
        if not waiting:
            return None
        chosen = max(waiting, key=lambda seal: (seal.final, seal.step or 0))
        self._fetching[fetch_key(chosen)] = chosen
        self._last = None
        return chosen

    def to_acknowledge(self, run: Run, instance: str, busy: frozenset[str]) -> tuple[Seal, ...]:
        if "ack:" in busy:
            return ()
        return tuple(
            seal
            for seal in run.seals
            if is_on(run, seal, instance) and not seal.acked and seal.digest in run.mirrored
        )

    def moved(self, reports: Sequence[tuple[str, int]], now: datetime) -> None:
        """Take in progress. Only more bytes than ever of one thing are a movement: a transfer
        that begins again and again stands still."""
        for what, size_bytes in reports:
            self._last = (what, size_bytes)
            if size_bytes > self._most.get(what, 0):
                self._most[what] = size_bytes
                self.moving_at = now

    def ended(self, key: str) -> Seal | None:
        return self._fetching.pop(key, None)

    def refused(self, key: str) -> int:
        """Count a failure that lies in the bytes, not in the way; how many this seal had."""
        self._bad[key] = self._bad.get(key, 0) + 1
        return self._bad[key]

    def fetching_from(self, instance: str) -> list[str]:
        return [key for key, seal in self._fetching.items() if seal.instance == instance]

    def expected_s(self, run: Run) -> float:
        """How long a drain would take now: what is missing at an assumed rate, and a moment."""
        missing = sum(seal.size_bytes for seal in missing_here(run))
        return LEAST_DRAIN_S + missing / ASSUMED_BYTES_PER_S

    def picture(self) -> Mapping[str, Any] | None:
        for seal in self._fetching.values():
            received = self._last[1] if self._last and self._last[0] == seal.digest else 0
            return {"name": seal.name, "received": received, "size_bytes": seal.size_bytes}
        return None
