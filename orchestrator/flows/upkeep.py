"""What the mirror needs besides new checkpoints: room, a policy that is kept, and a warning
before a disk is full."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.holdings import missing_here
from orchestrator.core.keep import Keep
from orchestrator.core.outlook import growth_here, growth_seen, outlook, saves_of
from orchestrator.core.phase_of import of_phase, serial_of
from orchestrator.core.phases import prunable_of
from orchestrator.core.run import Run, Seal
from orchestrator.core.where import can_come
from orchestrator.errors import StorageBlocked
from orchestrator.flows.hold import Hold
from orchestrator.flows.link import probe
from orchestrator.flows.retry import MOST_DOUBLINGS
from orchestrator.flows.worth import Weighed, measured_late, worth
from orchestrator.ports import Mirror, TaskContext

LOOK_S = 60.0
PAUSE_S = 30.0
LONGEST_PAUSE_S = 600.0
ROOM = "room:"
MOST_TOLD = 16


@dataclass(frozen=True)
class Room:
    """The bytes that may still be stored, what was measured after it came, and what is on record
    as here and is not."""

    free_bytes: int
    measured: tuple[Weighed, ...] = ()
    gone: tuple[Seal, ...] = ()


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
            hold, keep = self._hold, self._hold.phase(run).checkpoints.keep
            waiting = _first(missing_here(run)) if run.paused else None
            mirror = hold.mirror(run, serial_of(run, waiting) if waiting else None)
            others = tuple(each for each in hold.mirrors(run) if each is not mirror)
            hold.begin(ROOM, look, mirror, run, keep, hold.folder, others)
            self._look_at_box(run, heartbeats)
        if not any(key.startswith("prune:") for key in busy):
            self._let_go(run)

    def room_told(self, room: Room) -> None:
        """The mirror can be written to, and what waits fits."""
        run = self._hold.run()
        if run.paused:
            self._hold.record("mirror.resumed")
            for seal in room.gone:
                self._hold.record("requested.fetch", name=seal.name, digest=seal.digest)
            # What stood still meanwhile was nobody's fault.
            self._hold.watching_since = self._hold.now()
        for each in room.measured:
            self.weighed(each)
        self._hold.pause(ROOM, LOOK_S)
        saves = saves_of(of_phase(run, run.serial))
        if saves:
            growth = growth_here(saves, self._hold.phase(run).checkpoints.keep)
            self._tell(run, "here", room.free_bytes, growth)

    def blocked(self, error: StorageBlocked) -> None:
        """Something could not be stored or read: on record once, and looked at again later, the
        more seldom the more often room that was there did not do."""
        paused = self._hold.run().paused
        if paused is None or paused.reason != error.reason:
            self._pauses += 1
            message = error.message + (f" To do: {error.hint}." if error.hint else "")
            self._hold.record("mirror.paused", reason=error.reason, message=message)
        wait_s = PAUSE_S * 2 ** min(max(0, self._pauses - 1), MOST_DOUBLINGS)
        self._hold.pause(ROOM, min(LONGEST_PAUSE_S, wait_s))

    def weighed(self, found: Weighed) -> None:
        """Put on record what a checkpoint is worth."""
        seal, metrics = found.seal, dict(found.metrics)
        data = {"instance": seal.instance, "name": seal.name, "generation": seal.generation}
        self._hold.record("checkpoint.measured", **data, digest=seal.digest, metrics=metrics)

    def fetched(self) -> None:
        """A checkpoint came all the way."""
        self._pauses = 0
        if self._hold.run().paused:
            self._hold.record("mirror.resumed")

    def _let_go(self, run: Run) -> None:
        hold = self._hold
        for serial in range(run.serial + 1):
            phase = hold.phase(of_phase(run, serial))
            keep = phase.checkpoints.keep
            for seal in prunable_of(run, serial, keep, hold.plan.stages) if keep else ():
                key = f"prune:{seal.digest[:16]}"
                if key not in hold.waiting():
                    mirror = hold.mirror(run, serial)
                    hold.begin(key, prune, mirror, run, seal, keep, hold.folder)
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
        saves, was = saves_of(of_phase(run, run.serial)), run.disk_low.get(where)
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


def look(
    _: TaskContext,
    mirror: Mirror,
    run: Run,
    keep: Keep | None,
    folder: Path,
    others: tuple[Mirror, ...] = (),
) -> Room:
    """What may still be stored, in the mirror and of what boxes say below `folder`; `others` are
    the mirrors of this run's other phases. Raises StorageBlocked when nothing may, or not what
    waits."""
    probe(folder)
    missing = missing_here(run)
    for each in (mirror, *others):
        each.sweep({seal.digest for seal in missing})
    waiting = _first(missing) if run.paused else None
    free_bytes = mirror.room(waiting.digest, waiting.size_bytes) if waiting else mirror.room()
    phase = of_phase(run, run.serial)
    measured = tuple(measured_late(phase, keep.best, folder)) if keep and keep.best else ()
    return Room(free_bytes, measured, _gone(run, (mirror, *others)))


def _gone(run: Run, mirrors: tuple[Mirror, ...]) -> tuple[Seal, ...]:
    """A mirror that was away may be another when it is back: what it does not show any more, and
    somebody still has, comes again."""
    if run.paused is None or run.paused.reason != "missing":
        return ()
    there = {digest for mirror in mirrors for digest in mirror.digests()}
    here = {seal.digest: seal for seal in run.seals if seal.digest in run.mirrored}
    gone = (seal for digest, seal in here.items() if digest not in there)
    return tuple(seal for seal in gone if can_come(run, seal))


def prune(
    _: TaskContext, mirror: Mirror, run: Run, seal: Seal, keep: Keep | None, folder: Path
) -> Weighed:
    """Let one go, unless its trainer measured it after it came here: then what it is worth is told
    first. Repeatable: what is gone already is success."""
    best = keep.best if keep else None
    if best and best.name not in run.metrics.get(seal.digest, {}):
        metrics = worth(seal, folder, Path(run.mirrored[seal.digest]))
        if best.name in metrics:
            return Weighed(seal, metrics)
    mirror.prune(seal.digest)
    return Weighed(seal)


def _first(missing: tuple[Seal, ...]) -> Seal | None:
    return max(missing, key=lambda seal: (seal.final, seal.step or 0), default=None)
