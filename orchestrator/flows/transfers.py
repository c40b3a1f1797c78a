"""Which checkpoint comes home next, and which the box is told about: one of each at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.core.holdings import is_on, is_stored, missing_here, untold
from orchestrator.core.run import Run, Seal
from orchestrator.flows.pace import Pace

ASSUMED_BYTES_PER_S = 20e6
LEAST_DRAIN_S = 30.0


def fetch_key(seal: Seal) -> str:
    """A task of its own for each seal, so that one that fails does not hold up the others."""
    return f"fetch:{seal.instance}/{seal.name}.{seal.generation}"


class Transfers:
    """The newest first, the final weights before all: what a resume needs is here soonest."""

    def __init__(self) -> None:
        self._fetching: dict[str, Seal] = {}
        self._from_store: dict[str, Seal] = {}
        self._most: dict[str, int] = {}
        self._bad: dict[tuple[str, bool], int] = {}
        self._last: dict[str, int] = {}
        self.moving_at: datetime | None = None
        self._pace = Pace()

    def next(self, run: Run, instance: str, busy: frozenset[str]) -> Seal | None:
        """The seal to fetch from the box now; None while one is on its way or all that is left
        waits."""
        return self._next(self._fetching, _on_box(run, instance), busy)

    def next_stored(self, run: Run, instance: str | None, busy: frozenset[str]) -> Seal | None:
        """The same of what the box `instance` does not hold and a store does."""
        on_box = {fetch_key(seal) for seal in _on_box(run, instance)} if instance else set()
        stored = [seal for seal in missing_here(run) if is_stored(run, seal)]
        rest = [seal for seal in stored if fetch_key(seal) not in on_box | set(self._fetching)]
        return self._next(self._from_store, rest, busy)

    def _next(
        self, fetching: dict[str, Seal], seals: Sequence[Seal], busy: frozenset[str]
    ) -> Seal | None:
        waiting = [seal for seal in seals if fetch_key(seal) not in busy]
        if fetching:
            return None
        if not waiting:
            return None
        chosen = max(waiting, key=lambda seal: (seal.final, seal.step or 0))
        fetching[fetch_key(chosen)] = chosen
        self._last.pop(chosen.digest, None)
        return chosen

    def to_acknowledge(self, run: Run, instance: str, busy: frozenset[str]) -> tuple[Seal, ...]:
        if "ack:" in busy:
            return ()
        return untold(run, instance)

    def moved(self, reports: Sequence[tuple[str, int]], now: datetime) -> None:
        """Take in progress. Only more bytes than ever of one thing are a movement: a transfer
        that begins again and again stands still. One that the job's own cap holds up does not:
        it says so."""
        for what, size_bytes in reports:
            self._last[what] = size_bytes
            if getattr(size_bytes, "is_paused", False):
                self.moving_at = now
                continue
            if what in self._digests():
                self._pace.told(what, size_bytes, now)
            if size_bytes > self._most.get(what, 0):
                self._most[what] = size_bytes
                self.moving_at = now

    def ended(self, key: str) -> Seal | None:
        return self._fetching.pop(key, None) or self._from_store.pop(key, None)

    def from_store(self, key: str) -> bool:
        """Whether what is on its way comes from a store and not from a box."""
        return key in self._from_store

    def refused(self, key: str, *, stored: bool = False) -> int:
        """Count a failure that lies in the bytes, not in the way; how many this seal had from its
        box, or from the store."""
        self._bad[key, stored] = self._bad.get((key, stored), 0) + 1
        return self._bad[key, stored]

    def fetching_from(self, instance: str) -> list[str]:
        return [key for key, seal in self._fetching.items() if seal.instance == instance]

    def expected_s(self, run: Run) -> float:
        """How long a drain would take now: what is missing, at the rate of this run, and a
        moment."""
        missing = sum(seal.size_bytes for seal in missing_here(run))
        return LEAST_DRAIN_S + missing / self.bytes_per_s

    @property
    def bytes_per_s(self) -> float:
        """As it was measured last, else what is assumed of a link."""
        return self._pace.bytes_per_s or ASSUMED_BYTES_PER_S

    def picture(self) -> Mapping[str, Any] | None:
        for seal in (*self._fetching.values(), *self._from_store.values()):
            received = self._last.get(seal.digest, 0)
            return {
                "name": seal.name,
                "received": received,
                "size_bytes": seal.size_bytes,
                "bytes_per_s": self._pace.bytes_per_s,
                "streams": getattr(received, "streams", 0),
                "is_paused": getattr(received, "is_paused", False),
            }
        return None

    def _digests(self) -> set[str]:
        fetching = (*self._fetching.values(), *self._from_store.values())
        return {seal.digest for seal in fetching}


def _on_box(run: Run, instance: str) -> list[Seal]:
    return [seal for seal in missing_here(run) if is_on(run, seal, instance)]
