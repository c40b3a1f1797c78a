"""One run in the hands of its lease's holder: what every part of a stepper works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.core.actions import Deadlines
from orchestrator.core.budget import budget_left_s
from orchestrator.core.phase_of import serial_of
from orchestrator.core.plan import PhasePlan, PushPlan, read_plan
from orchestrator.core.redact import Redactor, secret_values
from orchestrator.core.run import Instance, Lease, Run, Seal
from orchestrator.flows import box
from orchestrator.flows.box import Kit
from orchestrator.flows.fleet import Fleet
from orchestrator.flows.launch import PRIVATE
from orchestrator.flows.retry import Backoff
from orchestrator.flows.stores import OpenStore, no_store, place_of, places_of
from orchestrator.ports import Boxes, Clock, Ledger, Mirror, Provider, StorePlace, Tasks
from remote.contract import Manifest

MAX_TOLD = 2000


@dataclass(frozen=True)
class World:
    """The ports that a stepper works through."""

    ledger: Ledger
    fleet: Fleet
    boxes: Boxes
    tasks: Tasks
    clock: Clock
    mirror: Callable[[str, Path], Mirror]
    agent: Callable[[], bytes]
    library: Callable[[], tuple[Path, Manifest]]
    state: Path
    deadlines: Deadlines
    store: OpenStore = no_store


class Hold:
    """Reads the run, records its events and begins its tasks. Raises StaleLease when the lease
    has passed on."""

    def __init__(self, lease: Lease, world: World) -> None:
        self.lease = lease
        self.world = world
        self.plan = read_plan(world.ledger.plan(lease.run))
        self.folder = world.state / "runs" / lease.run
        self.redactor = Redactor(_known_secrets(self.folder))
        self.backoff = Backoff()
        self.watching_since = world.clock.now()
        # With the epoch: what an earlier holder of the lease began is not taken for ours.
        self.prefix = f"{lease.run}/{lease.epoch}/"

    def run(self) -> Run:
        return self.world.ledger.run(self.lease.run)

    def now(self) -> datetime:
        return self.world.clock.now()

    def record(self, kind: str, **data: Any) -> None:
        # First redact, then shorten: a cut through a secret would leave its tail.
        told = {name: shorten(value) for name, value in self.redactor.words(data).items()}
        self.world.ledger.append(self.lease.run, kind, told, epoch=self.lease.epoch)

    def begin(self, key: str, fn: Callable[..., Any], *arguments: Any) -> None:
        self.world.tasks.start(self.prefix + key, lambda context: fn(context, *arguments))

    def cancel(self, key: str) -> None:
        self.world.tasks.cancel(self.prefix + key)

    def busy(self) -> frozenset[str]:
        tasks = self.world.tasks.all(self.prefix)
        return frozenset(key.removeprefix(self.prefix) for key in tasks)

    def waiting(self) -> frozenset[str]:
        return self.backoff.waiting(self.now())

    def pause(self, key: str, pause_s: float) -> None:
        """Not again before `pause_s` are over, although nothing failed."""
        self.backoff.hold(key, self.now() + timedelta(seconds=pause_s))

    def provider(self, instance: Instance) -> Provider:
        return self.world.fleet.providers[instance.provider]

    def phase(self, run: Run) -> PhasePlan:
        """What the plan says of the phase that the run is in."""
        return self.plan.phases[self._index(run, run.serial)]

    def mirror(self, run: Run, serial: int | None = None) -> Mirror:
        """The mirror of this phase, or of another that has begun."""
        phase = self.plan.phases[self._index(run, run.serial if serial is None else serial)]
        return self.world.mirror(run.id, Path(phase.checkpoints.mirror))

    def mirrors(self, run: Run) -> tuple[Mirror, ...]:
        """Those of all phases that have begun, each once, the newest first."""
        serials = range(run.serial, -1, -1)
        indexes = [self._index(run, serial) for serial in serials]
        folders = [self.plan.phases[index].checkpoints.mirror for index in indexes]
        return tuple(self.world.mirror(run.id, Path(each)) for each in dict.fromkeys(folders))

    def kit(self, instance: Instance, serial: int | None = None) -> Kit:
        """To work on a box in this phase, or for what another one left there."""
        world, run = self.world, self.run()
        phase = run.phase
        return Kit(
            run=run.id,
            plan=self.plan,
            boxes=world.boxes,
            endpoint=box.endpoint_of(instance),
            world_size=self.plan.world_size(instance.offer),
            folder=self.folder,
            mirror=self.mirror(run, serial),
            mirrors=tuple(m for m in self.mirrors(run) if m is not self.mirror(run, serial)),
            given=self._given(),
            index=self._index(run, run.serial if serial is None else serial),
            start=phase.start if phase and phase.how == "path" else None,
            agent=world.agent(),
            library=world.library(),
            provider=self.provider(instance),
            provider_id=instance.provider_id or "",
            hours_until=self._hours_until(),
        )

    def stored(self, run: Run, seal: Seal) -> tuple[Mirror, OpenStore, StorePlace, str, Seal]:
        """What it takes to fetch a seal that needs no box."""
        provider = self.provider(run.find_instance(seal.instance))
        place, base = place_of(run, self._also(run), seal, self.folder, provider)
        mirror = self.mirror(run, serial_of(run, seal))
        return mirror, self.world.store, place, base, seal

    def places(self, run: Run, instance: Instance) -> list[tuple[StorePlace, str]]:
        """Where to look for what a lost box pushed."""
        also = self._also(run)
        return places_of(run, also, instance, self.folder, self.provider(instance))

    def forget_secrets(self) -> None:
        for name in PRIVATE:
            (self.folder / name).unlink(missing_ok=True)

    def _given(self) -> tuple[Mirror, ...]:
        """The mirrors of earlier runs that this one starts from."""
        starts = [phase.start.given for phase in self.plan.phases if phase.start]
        return tuple(self.world.mirror(given.run, Path(given.mirror)) for given in starts if given)

    def _also(self, run: Run) -> PushPlan | None:
        return self.phase(run).checkpoints.also

    def _index(self, run: Run, serial: int) -> int:
        return run.phases[serial].index if run.phases else 0

    def _hours_until(self) -> datetime | None:
        """When the budget will be used up, with what is rented now; None without a budget."""
        now = self.now()
        left_s = budget_left_s(self.run(), now)
        return None if left_s is None else now + timedelta(seconds=left_s)


def shorten(value: Any) -> Any:
    """The beginning and the end of a long text: what failed, and its last words."""
    if not isinstance(value, str) or len(value) <= MAX_TOLD:
        return value
    return f"{value[: MAX_TOLD // 4]} … {value[-3 * MAX_TOLD // 4 :]}"


def _known_secrets(folder: Path) -> list[str]:
    paths = [folder / name for name in PRIVATE if (folder / name).exists()]
    return [value for path in paths for value in secret_values(path.read_text())]
