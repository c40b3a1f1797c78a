"""One run, one step at a time: take in what happened, observe, decide, act, record.

A step never waits. What takes longer is a task; its result is an event at a later step. A
side effect starts only after the intent to have it is on record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.actions import (
    Absent,
    Action,
    Advance,
    AskApproval,
    Begin,
    Create,
    Drain,
    Drained,
    Dump,
    Extend,
    Finish,
    Gone,
    Halt,
    LookAgain,
    Prepare,
    Reached,
    Restarted,
    Resume,
    Retire,
    Seen,
    Start,
    Stop,
    Terminate,
    Wait,
    Warn,
)
from orchestrator.core.decide import decide
from orchestrator.core.drain import drain_until
from orchestrator.core.holdings import unlooked
from orchestrator.core.phase_of import serial_of
from orchestrator.core.run import Lease, Outcome, Run, Seal
from orchestrator.flows import box, stores
from orchestrator.flows.ahead import Ahead
from orchestrator.flows.evidence import Heard, Witness
from orchestrator.flows.hold import Hold, World
from orchestrator.flows.ladder import Ladder
from orchestrator.flows.link import Link
from orchestrator.flows.prepare import prepare
from orchestrator.flows.rented import Rented
from orchestrator.flows.results import Results
from orchestrator.flows.transfers import Transfers, fetch_key
from orchestrator.flows.upkeep import Upkeep
from orchestrator.flows.worth import weighed
from orchestrator.ports import Provider, TaskContext


class Stepper:
    """Acts on one run while it holds the run's lease. Raises StaleLease when that has passed on."""

    def __init__(self, lease: Lease, world: World) -> None:
        self.lease = lease
        self._world = world
        hold = self._hold = Hold(lease, world)
        self.link = Link(lease, world.ledger, world.clock, hold.folder, hold.redactor)
        self.transfers = Transfers()
        self._rented = Rented(hold)
        self._ahead = Ahead()
        self._upkeep = Upkeep(hold)
        self._witness = Witness(hold)
        self._ladder = Ladder(hold)
        self._results = Results(hold, self._rented, self.link, self.transfers, self._upkeep)
        self.last: Action = Wait("nothing yet")

    @property
    def troubles(self) -> Mapping[str, str]:
        keys = self._rented.troubles(self._hold.run())
        return {**self._world.fleet.trouble, **keys, **self._results.troubles}

    def step(self) -> bool:
        """Do what can be done now; True when the run is terminal."""
        hold = self._hold
        self._rented.refresh(hold.run(), self.link.silent())
        self._results.take()
        self.transfers.moved(_pushes(self.link.heartbeats()), hold.now())
        run = self._rented.take_in(hold.run())
        run = self._keep_link(run)
        # What is judged and what is decided is of the same moment.
        now = hold.now()
        heard = self._witness.look(run, now)
        run = self._ladder.take_in(run, heard)
        seen = self._see(run, heard)
        self.last = decide(run, hold.plan.stages, seen, now, self._world.deadlines)
        self._act(run, self.last)
        self._transfer(hold.run())
        self._connect_ahead(hold.run())
        self._upkeep.step(hold.run(), self.link.heartbeats())
        return hold.run().terminal

    def stumbled(self) -> None:
        """A step broke off, for this side could not store what it saw: nothing that stood still
        meanwhile is anybody's fault."""
        self._hold.watching_since = self._hold.now()

    def woke(self) -> None:
        """This process slept: nothing that stood still meanwhile is anybody's fault, and nothing
        has to wait for a time of before."""
        self._hold.watching_since = self._hold.now()
        self._hold.backoff.forget()

    def close(self) -> None:
        """Let go of every task of this run; what they had not finished is done again later."""
        self._world.tasks.forget(self._hold.prefix)
        for place in self._ahead.close():
            self._world.boxes.expect_nothing(place, self.lease.run)

    def _keep_link(self, run: Run) -> Run:
        """Follow the agent of the instance that has one."""
        instance = run.instance
        began = {each.instance for each in run.attempts if each.started_at}
        if instance is None or instance.id not in began:
            return run
        if not instance.prepared and not run.outcome:
            return run
        key = f"follow:{instance.id}"
        if key not in self._hold.busy() | self._hold.waiting():
            offsets = self.link.offsets(instance.id)
            self._hold.begin(key, box.follow, self._hold.kit(instance), *offsets)
        return self._hold.run()

    def _see(self, run: Run, heard: Heard) -> Seen:
        instance = run.instance
        return Seen(
            presence={each.id: self._rented.presence(each) for each in run.instances},
            agent_alive=self.link.agent_alive(instance.id) if instance else None,
            silent=self.link.silent(),
            busy=self._hold.busy(),
            waiting=self._hold.waiting(),
            gave_up=self._results.gave_up,
            ended=frozenset(self._rented.ended),
            moving_at=self.transfers.moving_at,
            watching_since=self._hold.watching_since,
            expected_drain_s=self.transfers.expected_s(run),
            boot=self._rented.boots(run),
            reached=frozenset(self._results.reached),
            step=heard.step,
            gate=heard.gate,
            flags=heard.flags,
        )

    def _act(self, run: Run, action: Action) -> None:
        record = self._hold.record
        match action:
            case Create(offer):
                self._rented.create(run, offer)
            case Absent(instance):
                why = "no answer came, and the provider never listed it"
                record("instance.refused", instance=instance, why="absent", message=why)
            case LookAgain(at):
                record("offers.exhausted", again_at=at.isoformat())
            case Prepare(instance):
                self._prepare(run, instance)
            case Start():
                self._start(run, action)
            case Resume(instance, reason):
                self._give_up(run, instance, reason)
            case Restarted(instance):
                self._restarted(run, instance)
            case Stop(attempt, signal):
                kit = self._kit_of(run, attempt)
                self._hold.begin(f"stop:{attempt}:{signal}", box.stop, kit, attempt, signal)
            case Dump(attempt):
                self._hold.begin(f"dump:{attempt}", box.dump, self._kit_of(run, attempt), attempt)
            case Begin() | Advance() | Reached() | Extend() | Halt() | AskApproval() | Retire():
                self._ladder.act(run, action)
            case Warn(share):
                record("budget.warned", share=round(share, 3))
            case Drain(outcome):
                self._drain(run, outcome)
            case Drained(missing, why):
                told = {"missing": list(missing), "why": why if missing else ""}
                record("drain.ended", complete=not missing, **told)
            case Terminate(instance):
                self._let_go(instance)
                self._rented.terminate(run, instance)
            case Gone(instance):
                self._rented.gone(run.find_instance(instance))
            case Finish():
                self._finish()

    def _finish(self) -> None:
        """What is being let go is on record first."""
        if not any(key.startswith("prune:") for key in self._hold.busy()):
            self._hold.forget_secrets()
            self._hold.record("run.finished")

    def _kit_of(self, run: Run, attempt: int) -> box.Kit:
        return self._hold.kit(run.find_instance(run.attempts[attempt - 1].instance))

    def _drain(self, run: Run, outcome: Outcome) -> None:
        now = self._hold.now()
        self._hold.record(
            "drain.begun",
            outcome=outcome.state,
            reason=outcome.reason,
            code=outcome.code,
            expected_s=round(self.transfers.expected_s(run), 1),
            rate_bytes_per_s=round(self.transfers.bytes_per_s),
            until=drain_until(run, now, self._world.deadlines).isoformat(),
        )

    def _prepare(self, run: Run, instance_id: str) -> None:
        instance = run.find_instance(instance_id)
        kit, provider = self._hold.kit(instance), self._hold.provider(instance)
        self._hold.begin(f"prepare:{instance_id}", prepare, kit, provider, instance)

    def _start(self, run: Run, action: Start) -> None:
        number = action.attempt or len(run.attempts) + 1
        if action.attempt is None:
            source = action.resume
            self._hold.record(
                "attempt.intended",
                attempt=number,
                instance=action.instance,
                resume=None if source is None else source.__dict__,
                phase=self._hold.phase(run).name,
                metrics_from=self.link.offsets(action.instance)[2],
            )
        run = self._hold.run()
        kit = self._hold.kit(run.find_instance(action.instance))
        self._hold.begin(f"start:{number}", box.start, kit, run.attempts[number - 1])

    def _give_up(self, run: Run, instance_id: str, reason: str) -> None:
        self._hold.record("instance.lost", instance=instance_id, reason=reason)
        self._let_go(instance_id)
        instance = run.find_instance(instance_id)
        if not instance.booted and instance.provider_id:
            # Why a boot failed is known to the provider alone, and not for long.
            provider = self._hold.provider(instance)
            self._hold.begin(f"logs:{instance_id}", _logs, provider, instance.provider_id)

    def _restarted(self, run: Run, instance_id: str) -> None:
        self._let_go(instance_id)
        instance = run.find_instance(instance_id)
        self._rented.restarted(run, instance, "its provider says that it was restarted")

    def _let_go(self, instance: str) -> None:
        """Nothing more is asked of a box that is given up."""
        mine = [f"follow:{instance}", f"prepare:{instance}"]
        for key in (*mine, *self.transfers.fetching_from(instance)):
            self._hold.cancel(key)

    def _transfer(self, run: Run) -> None:
        """Bring the next checkpoint here, and tell the box what is here."""
        self._look(run)
        instance = run.instance if run.instance and run.instance.booted else None
        busy = self._hold.busy() | self._hold.waiting()
        stored = None
        if run.paused is None:
            stored = self.transfers.next_stored(run, instance.id if instance else None, busy)
        if stored:
            self._fetch(stored, stores.fetch, *self._hold.stored(run, stored))
        if instance is None:
            return
        seal = None if run.paused else self.transfers.next(run, instance.id, busy)
        if seal:
            kit = self._hold.kit(instance, serial_of(run, seal))
            self._fetch(seal, box.fetch, kit, seal)
        to_tell = self.transfers.to_acknowledge(run, instance.id, busy)
        if to_tell:
            self._hold.begin("ack:", box.acknowledge, self._hold.kit(instance), to_tell)

    def _connect_ahead(self, run: Run) -> None:
        now, boxes = self._hold.now(), self._world.boxes
        place = self._ahead.expected(run, self.link.heartbeats(), self._hold.busy(), now)
        if place:
            size = max((seal.size_bytes for seal in run.seals), default=0)
            boxes.expect(place, run.id, size, self._hold.phase(run).checkpoints.transfer)
        for place in self._ahead.over(now):
            boxes.expect_nothing(place, run.id)

    def _fetch(self, seal: Seal, fetch: Callable[..., str], *arguments: Any) -> None:
        self._hold.begin(fetch_key(seal), weighed, fetch, seal, self._hold.folder, *arguments)

    def _look(self, run: Run) -> None:
        """Ask S3 what a lost box left there while nobody listened."""
        for instance in unlooked(run):
            key = f"look:{instance.id}"
            if key not in self._hold.busy() | self._hold.waiting():
                places = self._hold.places(run, instance)
                self._hold.begin(key, stores.look, self._hold.world.store, places)


def _pushes(heartbeats: Mapping[str, Any]) -> list[tuple[str, int]]:
    """How much each box says that it has sent to S3."""
    told = {box: pulse.get("push") for box, pulse in heartbeats.items()}
    sent = {box: push.get("sent") for box, push in told.items() if isinstance(push, dict)}
    return [(f"push from {box}", size) for box, size in sent.items() if isinstance(size, int)]


def _logs(_: TaskContext, provider: Provider, provider_id: str) -> str:
    return provider.logs(provider_id)


def summary(stepper: Stepper) -> Mapping[str, Any]:
    """What a screen wants to know that is no event: volatile, rewritten each second."""
    return {
        "doing": getattr(stepper.last, "why", type(stepper.last).__name__),
        "heartbeat": stepper.link.heartbeats(),
        "transfer": stepper.transfers.picture(),
        "troubles": stepper.troubles,
    }


__all__ = ["Stepper", "World", "summary"]
