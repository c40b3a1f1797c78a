"""One run, one step at a time: take in what happened, observe, decide, act, record.

A step never waits. What takes longer is a task; its result is an event at a later step. A
side effect starts only after the intent to have it is on record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.core.actions import (
    Action,
    Create,
    Deadlines,
    Drain,
    Drained,
    Finish,
    Gone,
    Prepare,
    Resume,
    Seen,
    Start,
    Stop,
    Terminate,
    Wait,
)
from orchestrator.core.codec import from_json
from orchestrator.core.decide import decide
from orchestrator.core.plan import Plan
from orchestrator.core.redact import Redactor, secret_values
from orchestrator.core.run import Instance, Lease, Run, Seal
from orchestrator.errors import (
    CommandFailed,
    GpujobError,
    IntegrityError,
    LostAnswer,
    Missing,
    NoCapacity,
    NotFound,
    ProviderError,
    Refused,
    Transient,
    Unreachable,
)
from orchestrator.flows import box
from orchestrator.flows.box import Kit
from orchestrator.flows.fleet import Fleet, describe
from orchestrator.flows.link import Link
from orchestrator.flows.retry import Backoff
from orchestrator.flows.transfers import Transfers, fetch_key
from orchestrator.ports import Boxes, Clock, CreateRequest, Ledger, Mirror, Task, TaskContext, Tasks
from remote.contract import Manifest

log = logging.getLogger(__name__)

UNEXPECTED_TRIES = 4
BAD_TRIES = 4
MAX_TOLD = 2000
HOLD_S = {"stop": 5.0, "terminate": 2.0, "ack": 1.0}


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


class Stepper:
    """Acts on one run while it holds the run's lease. Raises StaleLease when that has passed on."""

    def __init__(self, lease: Lease, world: World) -> None:
        self.lease = lease
        self._world = world
        self._plan = from_json(Plan, world.ledger.plan(lease.run))
        self._folder = world.state / "runs" / lease.run
        # With the epoch: what an earlier holder of the lease began is not taken for ours.
        self._prefix = f"{lease.run}/{lease.epoch}/"
        self._born_at = world.clock.now()
        self._backoff = Backoff()
        self._gave_up: dict[str, str] = {}
        self.troubles: dict[str, str] = {}
        self._ended: set[str] = set()
        self._create_ended_at: dict[str, datetime] = {}
        self._redactor = Redactor(_known_secrets(self._folder / "secrets.env"))
        self.link = Link(lease, world.ledger, world.clock, self._folder, self._redactor)
        self.transfers = Transfers()
        self.last: Action = Wait("nothing yet")

    def step(self) -> bool:
        """Do what can be done now; True when the run is terminal."""
        for name in self._providers():
            self._world.fleet.refresh(name)
        self._take_results()
        run = self._take_in_listing(self._run())
        run = self._keep_link(run)
        self.last = decide(
            run, self._plan.offers, self._see(run), self._now(), self._world.deadlines
        )
        self._act(run, self.last)
        self._transfer(self._run())
        return self._run().terminal

    def close(self) -> None:
        """Let go of every task of this run; what they had not finished is done again later."""
        self._world.tasks.forget(self._prefix)

    def _providers(self) -> set[str]:
        return {offer.provider for offer in self._plan.offers}

    def _run(self) -> Run:
        return self._world.ledger.run(self.lease.run)

    def _now(self) -> datetime:
        return self._world.clock.now()

    def _record(self, kind: str, **data: Any) -> None:
        # First redact, then shorten: a cut through a secret would leave its tail.
        told = {name: _shorten(value) for name, value in self._redactor.any(data).items()}
        self._world.ledger.append(self.lease.run, kind, told, epoch=self.lease.epoch)

    def _begin(self, key: str, fn: Callable[..., Any], *arguments: Any) -> None:
        self._world.tasks.start(self._prefix + key, lambda context: fn(context, *arguments))

    # Taking in what happened

    def _take_results(self) -> None:
        for full_key in self._world.tasks.all(self._prefix):
            key = full_key.removeprefix(self._prefix)
            verb, _, rest = key.partition(":")
            said = self._world.tasks.reports(full_key)
            if verb != "follow":
                self.transfers.moved(said, self._now())
            elif self.link.take_in(rest, said):
                # A link that carried something and broke is made again at once.
                self._backoff.cleared(key)
            elif self.link.is_deaf(rest):
                self._world.tasks.cancel(full_key)
            task = self._world.tasks.take(full_key)
            if task:
                self._take_result(verb, rest, key, task)

    def _take_result(self, verb: str, rest: str, key: str, task: Task) -> None:
        if task.state == "done":
            self._backoff.cleared(key)
            self.troubles.pop(verb, None)
            self._succeeded(verb, rest, key, task.result)
        else:
            said = self._redactor.any(describe(task.error))
            log.info("%s %s failed: %s", self.lease.run, key, said)
            self.troubles[verb] = _shorten(said)
            self._failed(verb, rest, key, task.error)

    def _succeeded(self, verb: str, rest: str, key: str, result: Any) -> None:
        if verb in HOLD_S:
            self._backoff.hold(key, self._now() + timedelta(seconds=HOLD_S[verb]))
        match verb:
            case "create":
                self._record("instance.created", instance=rest, provider_id=result)
            case "prepare":
                self._record("instance.prepared", instance=rest)
            case "start":
                self._started(int(rest))
            case "terminate":
                self._ended.add(rest)
            case "fetch":
                self._fetched(key, result)
            case "ack":
                for seal in result:
                    self._tell_of(seal, "checkpoint.acked")
            case "follow":
                self.link.ended(rest)

    def _fetched(self, key: str, path: str) -> None:
        seal = self.transfers.ended(key)
        if seal:
            self._tell_of(seal, "checkpoint.mirrored", digest=seal.digest, path=path)

    def _tell_of(self, seal: Seal, kind: str, **data: Any) -> None:
        self._record(
            kind, instance=seal.instance, name=seal.name, generation=seal.generation, **data
        )

    def _started(self, number: int) -> None:
        attempt = self._run().attempts[number - 1]
        self.link.agent_started(attempt.instance)
        if attempt.started_at is None:
            self._record("attempt.started", attempt=number)

    def _failed(self, verb: str, rest: str, key: str, error: Exception | None) -> None:
        failures = self._backoff.failed(key, self._now())
        if verb == "create":
            self._create_ended_at[rest] = self._now()
            self._create_failed(rest, error)
            if failures >= UNEXPECTED_TRIES and not isinstance(error, ProviderError):
                self._gave_up[key] = describe(error)
        elif verb == "fetch":
            self._fetch_failed(key, error)
        elif verb == "follow":
            self.link.ended(rest)
        elif verb == "start" and isinstance(error, IntegrityError):
            self._abandon(int(rest), error)
        elif verb in ("prepare", "start") and self._hopeless(verb, error, failures):
            self._gave_up[key] = describe(error)

    def _create_failed(self, instance: str, error: Exception | None) -> None:
        """Nothing was rented for sure: the next offer. Anything else: the list has to say."""
        if isinstance(error, Transient | LostAnswer):
            return
        why = "no_capacity" if isinstance(error, NoCapacity) else "refused"
        if isinstance(error, NoCapacity | Refused | GpujobError):
            self._record("instance.refused", instance=instance, why=why, message=describe(error))

    def _fetch_failed(self, key: str, error: Exception | None) -> None:
        seal = self.transfers.ended(key)
        if seal is None or not isinstance(error, IntegrityError | NotFound | Refused):
            return
        if self.transfers.refused(key) >= BAD_TRIES:
            self._tell_of(seal, "checkpoint.failed", reason=describe(error))

    def _abandon(self, number: int, error: IntegrityError) -> None:
        """The checkpoint to resume from is not what it was: an older one may be."""
        source = self._run().attempts[number - 1].resume
        if source:
            self._record(
                "attempt.abandoned",
                attempt=number,
                digest=source.digest,
                reason=describe(error),
            )

    def _hopeless(self, verb: str, error: Exception | None, failures: int) -> bool:
        """Whether trying again cannot help: what the job asks for is wrong, or it was tried."""
        if isinstance(error, Unreachable | Transient):
            return False
        if verb == "prepare" and isinstance(error, CommandFailed | Missing | IntegrityError):
            return True
        return failures >= UNEXPECTED_TRIES

    def _take_in_listing(self, run: Run) -> Run:
        """Adopt an unanswered create that the list shows; learn where an instance answers."""
        for instance in run.instances:
            found = None if instance.gone_at else self._world.fleet.find(instance)
            if found is None:
                continue
            if instance.provider_id is None:
                if f"create:{instance.id}" not in self._busy():
                    self._record(
                        "instance.created", instance=instance.id, provider_id=found.provider_id
                    )
            elif instance.state == "PENDING" and found.state == "RUNNING" and found.host:
                self._record(
                    "instance.running",
                    instance=instance.id,
                    host=found.host,
                    port=found.port,
                    user=found.user,
                    restart_marker=found.restart_marker,
                )
        return self._run()

    def _keep_link(self, run: Run) -> Run:
        """Follow the agent of the instance that has one."""
        instance, attempt = run.instance, run.attempt
        if not (instance and attempt and attempt.started_at and attempt.instance == instance.id):
            return run
        key = f"follow:{instance.id}"
        if key not in self._busy() | self._backoff.waiting(self._now()):
            offsets = self.link.offsets(instance.id)
            self._begin(key, box.follow, self._kit(instance), *offsets)
        return self._run()

    # Observing

    def _see(self, run: Run) -> Seen:
        instance = run.instance
        return Seen(
            presence={each.id: self._presence(each) for each in run.instances},
            agent_alive=self.link.agent_alive(instance.id) if instance else None,
            silent=self.link.silent(),
            busy=self._busy(),
            waiting=self._backoff.waiting(self._now()),
            gave_up=self._gave_up,
            ended=frozenset(self._ended),
            moving_at=self.transfers.moving_at,
            watching_since=self._born_at,
            expected_drain_s=self.transfers.expected_s(run),
        )

    def _presence(self, instance: Instance) -> Any:
        since = instance.created_at or self._create_ended_at.get(
            instance.id, max(instance.intended_at, self._born_at)
        )
        return self._world.fleet.presence(instance, since)

    def _busy(self) -> frozenset[str]:
        tasks = self._world.tasks.all(self._prefix)
        return frozenset(key.removeprefix(self._prefix) for key in tasks)

    # Acting

    def _act(self, run: Run, action: Action) -> None:
        match action:
            case Create():
                self._create(run, action)
            case Prepare(instance):
                found = run.find_instance(instance)
                provider = self._world.fleet.providers[found.provider]
                self._begin(f"prepare:{instance}", box.prepare, self._kit(found), provider, found)
            case Start():
                self._start(run, action)
            case Resume(instance, reason):
                self._record("instance.lost", instance=instance, reason=reason)
                self._let_go(instance)
            case Stop(attempt, signal):
                kit = self._kit(run.find_instance(run.attempts[attempt - 1].instance))
                self._begin(f"stop:{attempt}:{signal}", box.stop, kit, attempt, signal)
            case Drain(outcome):
                self._record(
                    "drain.begun",
                    outcome=outcome.state,
                    reason=outcome.reason,
                    code=outcome.code,
                )
            case Drained(missing):
                self._record("drain.ended", complete=not missing, missing=list(missing))
            case Terminate(instance):
                self._terminate(run, instance)
            case Gone(instance):
                self._record("instance.gone", instance=instance)
            case Finish():
                self._finish(run)
            case Wait():
                pass

    def _create(self, run: Run, action: Create) -> None:
        offer = action.offer
        instance = action.instance or f"{run.id}-{len(run.instances) + 1}"
        mark = f"gpujob-{self._world.ledger.id}-{instance}"
        if action.instance is None:
            self._record(
                "instance.intended",
                instance=instance,
                provider=offer.provider,
                offer=offer.id,
                usd_per_hour=offer.usd_per_hour,
                mark=mark,
            )
        provider = self._world.fleet.providers[offer.provider]
        boxes, disk_gb = self._world.boxes, self._plan.need.disk_gb

        def create(_: TaskContext) -> str:
            key = boxes.public_key()
            return provider.create(CreateRequest(instance, mark, offer, key, disk_gb))

        self._begin(f"create:{instance}", create)

    def _start(self, run: Run, action: Start) -> None:
        number = action.attempt or len(run.attempts) + 1
        if action.attempt is None:
            source = action.resume
            self._record(
                "attempt.intended",
                attempt=number,
                instance=action.instance,
                resume=None if source is None else source.__dict__,
            )
        run = self._run()
        kit = self._kit(run.find_instance(action.instance))
        self._begin(f"start:{number}", box.start, kit, run.attempts[number - 1])

    def _terminate(self, run: Run, instance_id: str) -> None:
        instance = run.find_instance(instance_id)
        if not instance.terminating:
            self._record("instance.terminating", instance=instance_id)
        self._let_go(instance_id)
        provider = self._world.fleet.providers[instance.provider]
        twins = self._world.fleet.twins(instance)

        def end_all(_: TaskContext) -> None:
            for provider_id in twins:
                provider.terminate(provider_id)

        if twins:
            self._begin(f"terminate:{instance_id}", end_all)

    def _finish(self, run: Run) -> None:
        (self._folder / "secrets.env").unlink(missing_ok=True)
        self._record("run.finished")

    def _let_go(self, instance: str) -> None:
        """Nothing more is asked of a box that is given up."""
        mine = [f"follow:{instance}", f"prepare:{instance}"]
        for key in (*mine, *self.transfers.fetching_from(instance)):
            self._world.tasks.cancel(self._prefix + key)

    def _transfer(self, run: Run) -> None:
        """Bring the next checkpoint here, and tell the box what is here."""
        instance = run.instance
        if instance is None or not instance.prepared:
            return
        busy = self._busy() | self._backoff.waiting(self._now())
        seal = self.transfers.next(run, instance.id, busy)
        if seal:
            self._begin(fetch_key(seal), box.fetch, self._kit(instance), seal)
        held = self.transfers.to_acknowledge(run, instance.id, busy)
        if held:
            self._begin("ack:", box.acknowledge, self._kit(instance), held)

    def _kit(self, instance: Instance) -> Kit:
        world, run = self._world, self.lease.run
        return Kit(
            run=run,
            plan=self._plan,
            boxes=world.boxes,
            endpoint=box.endpoint_of(instance),
            world_size=self._plan.world_size(instance.offer),
            folder=self._folder,
            mirror=world.mirror(run, Path(self._plan.checkpoints.mirror)),
            agent=world.agent(),
            library=world.library(),
        )


def _shorten(value: Any) -> Any:
    """The beginning and the end of a long text: what failed, and its last words."""
    if not isinstance(value, str) or len(value) <= MAX_TOLD:
        return value
    return f"{value[: MAX_TOLD // 4]} … {value[-3 * MAX_TOLD // 4 :]}"


def _known_secrets(path: Path) -> list[str]:
    return secret_values(path.read_text()) if path.exists() else []


def summary(stepper: Stepper) -> Mapping[str, Any]:
    """What a screen wants to know that is no event: volatile, rewritten each second."""
    return {
        "doing": getattr(stepper.last, "why", type(stepper.last).__name__),
        "heartbeat": stepper.link.heartbeats(),
        "transfer": stepper.transfers.picture(),
        "troubles": stepper.troubles,
    }
