"""One run in the hands of its lease's holder: what every part of a stepper works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.core.actions import Deadlines
from orchestrator.core.codec import from_json
from orchestrator.core.plan import Plan
from orchestrator.core.redact import Redactor, secret_values
from orchestrator.core.run import Instance, Lease, Run
from orchestrator.flows import box
from orchestrator.flows.box import Kit
from orchestrator.flows.fleet import Fleet
from orchestrator.flows.retry import Backoff
from orchestrator.ports import Boxes, Clock, Ledger, Mirror, Provider, Tasks
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


class Hold:
    """Reads the run, records its events and begins its tasks. Raises StaleLease when the lease
    has passed on."""

    def __init__(self, lease: Lease, world: World) -> None:
        self.lease = lease
        self.world = world
        self.plan = from_json(Plan, world.ledger.plan(lease.run))
        self.folder = world.state / "runs" / lease.run
        self.redactor = Redactor(_known_secrets(self.folder / "secrets.env"))
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

    def kit(self, instance: Instance) -> Kit:
        world, run = self.world, self.lease.run
        return Kit(
            run=run,
            plan=self.plan,
            boxes=world.boxes,
            endpoint=box.endpoint_of(instance),
            world_size=self.plan.world_size(instance.offer),
            folder=self.folder,
            mirror=world.mirror(run, Path(self.plan.checkpoints.mirror)),
            agent=world.agent(),
            library=world.library(),
            provider=self.provider(instance),
            provider_id=instance.provider_id or "",
            hours_until=self._hours_until(),
        )

    def _hours_until(self) -> datetime | None:
        """When the budget will be used up, with what is rented now; None without a budget."""
        run, now = self.run(), self.now()
        limits, price = run.limits, sum(each.price_usd_per_hour for each in run.still_billing)
        left = []
        if limits.budget_hours is not None:
            left.append(limits.budget_hours - run.rented_hours(now))
        if limits.budget_usd is not None and price > 0:
            left.append((limits.budget_usd - run.spent_usd(now)) / price)
        return now + timedelta(hours=max(0.0, min(left))) if left else None


def shorten(value: Any) -> Any:
    """The beginning and the end of a long text: what failed, and its last words."""
    if not isinstance(value, str) or len(value) <= MAX_TOLD:
        return value
    return f"{value[: MAX_TOLD // 4]} … {value[-3 * MAX_TOLD // 4 :]}"


def _known_secrets(path: Path) -> list[str]:
    return secret_values(path.read_text()) if path.exists() else []
