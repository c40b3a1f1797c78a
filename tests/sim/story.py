"""One run under simulation, from plan to end, with controllers that may die and be succeeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kit.history import planned
from kit.plans import plan_of

from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.core.actions import Deadlines
from orchestrator.core.codec import to_json
from orchestrator.core.offer import Offer
from orchestrator.core.plan import Plan
from orchestrator.core.run import Event, Recovery, Run
from orchestrator.daemon import Scheduler
from orchestrator.errors import LedgerError
from orchestrator.flows.fleet import Fleet
from orchestrator.flows.step import World as Ports
from orchestrator.holder import Holder
from orchestrator.ports import Provider
from remote.contract import Manifest
from sim.world import (
    Crash,
    SimBoxes,
    SimMirror,
    SimProvider,
    SimStore,
    SimTasks,
    World,
    checkpoint,
)

RUN = "demo-1"
OFFER = Offer("local", "cpu-2", "cpu", 2, 2, 8, 20, 1.0)
UNDISTURBED = {checkpoint(step).digest for step in range(10, 61, 10)} | {
    checkpoint(60, True).digest
}


class CrashingLedger(SqliteLedger):
    """Dies at the write numbered `at`, before or after it reaches the disk."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.writes = 0
        self.at: int | None = None
        self.after = False
        self.trouble: Callable[[], bool] = lambda: False

    def append(
        self, run: str, kind: str, data: Mapping[str, Any], *, epoch: int | None = None
    ) -> Event:
        return self._maybe(lambda: SqliteLedger.append(self, run, kind, data, epoch=epoch))

    def append_fact(self, *arguments: Any, **words: Any) -> bool:
        return self._maybe(lambda: SqliteLedger.append_fact(self, *arguments, **words))

    def _maybe(self, write: Callable[[], Any]) -> Any:
        self.writes += 1
        if self.writes == self.at and not self.after:
            raise Crash
        if self.trouble():
            raise LedgerError("database or disk is full")
        result = write()
        if self.writes == self.at:
            raise Crash
        return result


class Story:
    """One run from plan to end, with controllers that may die and be succeeded."""

    def __init__(
        self,
        folder: Path,
        seed: int = 0,
        host_loss: int = 10,
        listing_lag_s: float = 0.0,
        world: World | None = None,
        provider: Provider | None = None,
        plan: Plan | None = None,
        step_s: float = 0.5,
        **more: Any,
    ) -> None:
        self.step_s = step_s
        self.world = world or World(seed)
        self.provider = provider or SimProvider(self.world, listing_lag_s)
        self.mirror = SimMirror()
        self.mirrors = {self.mirror.folder: self.mirror}
        self.folder = folder
        (folder / "runs" / RUN).mkdir(parents=True)
        self.lives = 0
        ledger = self._ledger()
        made = plan or make_plan(host_loss=host_loss)
        ledger.create(RUN, to_json(made), planned(host_loss=host_loss, **more)[1])
        ledger.close()
        self.is_full = False

    def run(
        self,
        *,
        crash_at: int | None = None,
        after: bool = False,
        meddle: Callable[[Story, Run], None] = lambda story, run: None,
        limit_s: float = 3000,
    ) -> Run:
        """Live until the run is terminal; the first controller may die at a write."""
        while self.world.now_s < limit_s + 1767225600:
            ledger = self._ledger()
            if crash_at is not None and self.lives == 2:
                ledger.at, ledger.after = crash_at, after
            try:
                run = self._live(ledger, meddle, limit_s)
            except Crash:
                ledger.close()
                self.world.clock.advance(2)
                continue
            ledger.close()
            if run.terminal:
                return run
        raise AssertionError(f"not terminal after {limit_s} s: {run.state} {run.reason}")

    def fill(self, *, is_full: bool) -> None:
        """The disk that holds the state takes no line of a log, and no event while `is_full`."""
        runs = self.folder / "runs" / RUN
        if is_full:
            (runs / ".room").mkdir(exist_ok=True)
        elif (runs / ".room").is_dir():
            (runs / ".room").rmdir()
        for box in runs.glob(f"{RUN}-?"):
            away = box.with_name(f"{box.name}.away")
            if is_full and box.is_dir():
                box.rename(away)
                box.touch()
            elif not is_full and box.is_file():
                box.unlink()
                away.rename(box)

    def events(self) -> list[Event]:
        return self._ledger().events(RUN)

    def _ledger(self) -> CrashingLedger:
        self.lives += 1
        # Each controller is another process; the one before it is dead.
        holder = Holder(Holder.current().boot, 2**22 + self.lives, self.lives)
        return CrashingLedger(self.folder / "ledger.db", self.world.clock, holder)

    def _live(
        self, ledger: CrashingLedger, meddle: Callable[[Story, Run], None], limit_s: float
    ) -> Run:
        ledger.trouble = lambda: self.is_full
        tasks = SimTasks(self.world)
        scheduler = Scheduler(self._ports(ledger, tasks))
        while self.world.now_s < limit_s + 1767225600:
            live = scheduler.turn()
            self.writes = ledger.writes
            run = ledger.run(RUN)
            if not live:
                return run
            meddle(self, run)
            self.world.clock.advance(self.step_s)
            tasks.run_due()
        return ledger.run(RUN)

    def _ports(self, ledger: SqliteLedger, tasks: SimTasks) -> Ports:
        clock = self.world.clock
        return Ports(
            ledger=ledger,
            fleet=Fleet({self.provider.name: self.provider}, tasks, clock),
            boxes=SimBoxes(self.world),
            tasks=tasks,
            clock=clock,
            mirror=lambda run, folder: self.mirrors.setdefault(folder, SimMirror(folder)),
            agent=lambda: b"agent",
            library=lambda: (Path("/lib"), Manifest(())),
            state=self.folder,
            deadlines=Deadlines(),
            store=lambda place: SimStore(self.world),
        )


def make_plan(offers: tuple[Offer, ...] = (OFFER,), host_loss: int = 10) -> Plan:
    return plan_of(offers=offers, recovery=Recovery(host_loss=host_loss))
