"""What the mirror needs besides new checkpoints: room, a policy that is kept, and a warning
before a disk is full."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.holdings import missing_here
from orchestrator.core.keep import prunable
from orchestrator.core.outlook import growth_here, growth_seen, outlook, saves_of
from orchestrator.core.run import Run, Seal
from orchestrator.errors import StorageBlocked
from orchestrator.flows.hold import Hold
from orchestrator.ports import Mirror, TaskContext

LOOK_S = 60.0
PAUSE_S = 30.0
LONGEST_PAUSE_S = 600.0
ROOM = "room:"
MOST_TOLD = 16


class Upkeep:
    """Looks after the mirror of one run. While it is paused nothing is fetched; nothing on the
    box is given up for that."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._pauses = 0
        self._box_told: dict[str, deque[tuple[int, int]]] = {}

    def step(self, run: Run, heartbeats: Mapping[str, Any]) -> None:
        """Begin what is due: a look at the disk, one checkpoint to let go."""
        if run.terminal:
            return
        busy = self._hold.busy() | self._hold.waiting()
        if ROOM not in busy and (run.seals or run.paused):
            waiting = _first(missing_here(run)) if run.paused else None
            self._hold.begin(ROOM, look, self._mirror(), waiting)
            self._look_at_box(run, heartbeats)
        if not any(key.startswith("prune:") for key in busy):
            self._let_go(run)

    def room_told(self, free_bytes: int) -> None:
        """The mirror can be written to, and what waits fits."""
        run = self._hold.run()
        if run.paused:
            self._hold.record("mirror.resumed")
            # What stood still meanwhile was nobody's fault.
            self._hold.watching_since = self._hold.now()
        self._hold.pause(ROOM, LOOK_S)
        saves = saves_of(run)
        if saves:
            growth = growth_here(saves, self._hold.plan.checkpoints.keep)
            self._tell(run, "here", free_bytes, growth)

    def blocked(self, error: StorageBlocked) -> None:
        """Something could not be stored or read: on record once, and looked at again later, the
        more seldom the more often room that was there did not do."""
        paused = self._hold.run().paused
        if paused is None or paused.reason != error.reason:
            self._pauses += 1
            message = error.message + (f" To do: {error.hint}." if error.hint else "")
            self._hold.record("mirror.paused", reason=error.reason, message=message)
        wait_s = PAUSE_S * 2 ** max(0, self._pauses - 1)
        self._hold.pause(ROOM, min(LONGEST_PAUSE_S, wait_s))

    def fetched(self) -> None:
        """A checkpoint came all the way."""
        self._pauses = 0
        if self._hold.run().paused:
            self._hold.record("mirror.resumed")

    def _let_go(self, run: Run) -> None:
        for seal in prunable(run, self._hold.plan.checkpoints.keep):
            key = f"prune:{seal.digest[:16]}"
            if key not in self._hold.waiting():
                self._hold.begin(key, prune, self._mirror(), seal)
                return

    def _look_at_box(self, run: Run, heartbeats: Mapping[str, Any]) -> None:
        box = run.instance
        pulse = heartbeats.get(box.id) if box else None
        free = pulse.get("free_bytes") if isinstance(pulse, Mapping) else None
        if box is None or not isinstance(free, int) or isinstance(free, bool) or free < 0:
            return
        told = self._box_told.setdefault(box.id, deque(maxlen=MOST_TOLD))
        count = sum(1 for seal in run.seals if seal.instance == box.id)
        if not told or told[-1][0] != count:
            told.append((count, free))
        self._tell(run, "box", free, growth_seen(told))

    def _tell(self, run: Run, where: str, free_bytes: int, growth_bytes: float) -> None:
        saves, was = saves_of(run), run.disk_low.get(where)
        if saves is None or run.outcome:
            return
        now = self._hold.now()
        low = outlook(free_bytes, saves, growth_bytes, now, was_low=was is not None)
        if low and was is None:
            full_at = low.full_at.isoformat() if low.full_at else None
            data = {"free_bytes": low.free_bytes, "needed_bytes": low.needed_bytes}
            self._hold.record("disk.low", where=where, full_at=full_at, **data)
        elif low is None and was:
            self._hold.record("disk.eased", where=where)

    def _mirror(self) -> Mirror:
        hold = self._hold
        return hold.world.mirror(hold.lease.run, Path(hold.plan.checkpoints.mirror))


def look(_: TaskContext, mirror: Mirror, seal: Seal | None) -> int:
    """The bytes that may still be stored. Raises StorageBlocked when `seal` does not fit."""
    if seal is None:
        return mirror.room()
    return mirror.room(seal.name, seal.generation, seal.size_bytes)


def prune(_: TaskContext, mirror: Mirror, seal: Seal) -> Seal:
    """Repeatable: what is gone already is success."""
    mirror.prune(seal.digest)
    return seal


def _first(missing: tuple[Seal, ...]) -> Seal | None:
    return max(missing, key=lambda seal: (seal.final, seal.step or 0), default=None)
