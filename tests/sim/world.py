"""A whole world in one thread: provider, boxes, trainer, tasks and time, driven by one seed.

The boxes follow `docs/formats.md`; what is real here is everything above the ports: decide, the
stepper, the scheduler and the ledger on SQLite.
"""

from __future__ import annotations

import base64
import json
import random
import shlex
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kit.clock import ManualClock

from orchestrator.core.offer import Need, Offer
from orchestrator.errors import (
    Locked,
    LostAnswer,
    NoCapacity,
    NotFound,
    ProviderError,
    StorageBlocked,
    Transient,
    Unreachable,
)
from orchestrator.ports import (
    Account,
    Capabilities,
    Completed,
    CreateRequest,
    Endpoint,
    Listing,
    Progress,
    ProviderInstance,
    SelfStop,
    Task,
    TaskContext,
    TaskState,
)
from remote.contract import FileEntry, Manifest

STEPS, EVERY = 60, 10


class Crash(BaseException):
    """The controller dies here: no handler runs, as with SIGKILL."""


def checkpoint(step: int, final: bool = False, phase: str = "main") -> Manifest:
    """The same step of a phase has the same bytes whoever trains it: training is deterministic."""
    own = 0 if phase == "main" else 10_000 * zlib.crc32(phase.encode())
    digest = f"{step + (1000 if final else 0) + own:064x}"
    return Manifest((FileEntry("weights", 1, digest, (digest,)),))


@dataclass
class Seal:
    manifest: Manifest
    acked: bool = False


@dataclass
class Box:
    """One rented machine: an agent and a trainer that gains a step a second."""

    request: CreateRequest
    provider_id: str
    born_s: float
    dead_at: float | None = None
    name: str = ""
    marker: str = "m"
    port: int = 22
    usd_per_hour: float = 1.0
    hidden_until_s: float = 0.0
    has_key: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    trees: set[str] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    seals: dict[tuple[str, int], Seal] = field(default_factory=dict)
    attempts: dict[int, dict[str, Any]] = field(default_factory=dict)
    metrics: bytearray = field(default_factory=bytearray)
    loss: Callable[[int], float] = lambda step: 9.0 / step

    @property
    def host(self) -> str:
        return f"{self.provider_id}.example"

    def restart(self) -> None:
        """The container begins anew: no process, no file, another start time."""
        self.marker += "m"
        kept = (self.files, self.trees, self.events, self.seals, self.attempts, self.metrics)
        for each in kept:
            each.clear()

    def fact(self, kind: str, **data: Any) -> None:
        self.events.append(
            {
                "v": 1,
                "instance": self.name,
                "boot": "b1",
                "seq": len(self.events) + 1,
                "at": "2026-01-01T00:00:00Z",
                "kind": kind,
                "data": data,
            }
        )

    def train(self, now_s: float, crash_at: int | None) -> None:
        """Catch up with time: one step a second, a seal every EVERY steps."""
        for number, attempt in self.attempts.items():
            while attempt["rc"] is None and attempt["began_s"] + attempt["gained"] < now_s:
                attempt["gained"] += 1
                step = attempt["from"] + attempt["gained"]
                line = {"v": 1, "step": step, "max_steps": STEPS, "loss": self.loss(step)}
                self.metrics += json.dumps({**line, "attempt": number}).encode() + b"\n"
                if step == crash_at and number == 1:
                    self._end(number, attempt, rc=1, tail="RuntimeError: boom")
                elif step >= STEPS or attempt["stopped"]:
                    if step % EVERY == 0 and attempt["gained"]:
                        self._seal(number, f"checkpoint-{step}", step)
                    done = step >= STEPS
                    if done:
                        self._seal(number, "final", STEPS, final=True)
                    self._end(number, attempt, rc=0 if done else 143, tail="")
                elif step % EVERY == 0:
                    self._seal(number, f"checkpoint-{step}", step)

    def _seal(self, number: int, name: str, step: int, final: bool = False) -> None:
        manifest = checkpoint(step, final, self.attempts[number]["phase"])
        generation = 1 + sum(1 for known, _ in self.seals if known == name)
        self.seals[name, generation] = Seal(manifest)
        self.fact(
            "checkpoint.sealed",
            attempt=number,
            name=name,
            generation=generation,
            step=step,
            max_steps=STEPS,
            size_bytes=1,
            digest=manifest.digest,
            final=final,
        )

    def _end(self, number: int, attempt: dict[str, Any], *, rc: int, tail: str) -> None:
        attempt["rc"] = rc
        self.fact("trainer.exited", attempt=number, rc=rc, tail=tail)
        self.fact("agent.settled", attempt=number)


@dataclass
class Faults:
    """What goes wrong, by name; each list is used up front to back, an exception stays."""

    create: list[ProviderError] = field(default_factory=list)
    lose_answer: int = 0
    hide_s: float = 0.0
    listing: int = 0
    crash_at_step: int | None = None
    start: Exception | None = None
    pull: Exception | None = None
    ack: Exception | None = None
    store: Exception | None = None


class World:
    """Time, money and machines; it survives any number of controllers."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = ManualClock()
        self.random = random.Random(seed)
        self.boxes: dict[str, Box] = {}
        self.faults = Faults()
        self.key_id = self.account = "0123456789ab"
        self.billing: list[tuple[str, float, float | None]] = []
        self.free_bytes = 10**12
        self.volume: dict[tuple[str, int], Seal] | None = None
        self.loss: Callable[[int], float] = lambda step: 9.0 / step

    @property
    def now_s(self) -> float:
        return self.clock.monotonic()

    def living(self) -> list[Box]:
        return [box for box in self.boxes.values() if box.dead_at is None]

    def box(self, address: tuple[str, int]) -> Box:
        """The living box at an address; raises Unreachable, as ssh would."""
        host, _ = address
        for box in self.living():
            if box.host == host:
                box.train(self.now_s, self.faults.crash_at_step)
                if not box.has_key:
                    raise Locked(f"{host} does not take our key")
                return box
        raise Unreachable(f"{host} does not answer")

    def kill(self, box: Box) -> None:
        box.dead_at = self.now_s

    def find(self, provider_id: str) -> Box | None:
        return self.boxes.get(provider_id)


class SimProvider:
    name = "local"

    def __init__(self, world: World, listing_lag_s: float = 0.0) -> None:
        self._world = world
        self.capabilities = Capabilities(
            poll_s=1.0, idle_poll_s=1.0, listing_lag_s=listing_lag_s, boot_s={"starting": 60.0}
        )

    def offers(self, need: Need) -> Sequence[Offer]:
        return [Offer("local", "cpu-2", "cpu", 2, 2, 8, need.disk_gb, 1.0)]

    def create(self, request: CreateRequest) -> str:
        faults = self._world.faults
        if faults.create:
            raise faults.create.pop(0)
        provider_id = f"p{len(self._world.boxes) + 1}"
        box = Box(request, provider_id, self._world.now_s)
        box.loss = lambda step: self._world.loss(step)
        if self._world.volume is not None:
            box.seals = self._world.volume
        box.hidden_until_s, faults.hide_s = self._world.now_s + faults.hide_s, 0.0
        self._world.boxes[provider_id] = box
        if faults.lose_answer > 0:
            faults.lose_answer -= 1
            raise LostAnswer("the connection broke before the answer came")
        return provider_id

    def list(self) -> Listing:
        if self._world.faults.listing > 0:
            self._world.faults.listing -= 1
            raise Transient("502")
        # The time of a listing is when it was asked for: it may be old when it arrives.
        return Listing(
            self._world.clock.now(),
            tuple(
                self._told(box)
                for box in self._world.living()
                if box.hidden_until_s <= self._world.now_s
                and self._world.key_id == self._world.account
            ),
            key_id=self._world.key_id,
        )

    def _told(self, box: Box) -> ProviderInstance:
        booted = self._world.now_s - box.born_s > 3
        return ProviderInstance(
            provider_id=box.provider_id,
            mark=box.request.mark,
            state="RUNNING" if booted else "PENDING",
            created_at=self._world.clock.now(),
            usd_per_hour=box.usd_per_hour,
            host=box.host if booted else None,
            port=box.port,
            user="me",
            restart_marker=box.marker,
            phase="ready" if booted else "starting",
        )

    def terminate(self, provider_id: str) -> None:
        box = self._world.find(provider_id)
        if box and box.dead_at is None and self._world.key_id == self._world.account:
            self._world.kill(box)

    def ensure_access(self, provider_id: str, public_key: str) -> None:
        box = self._world.find(provider_id)
        if box:
            box.has_key = True

    def host_keys(self, provider_id: str) -> Sequence[str]:
        return ()

    def logs(self, provider_id: str) -> str:
        return ""

    def account(self) -> Account:
        return Account("local", "sim")

    def key_id(self) -> str:
        return self._world.key_id

    def self_stop(self, provider_id: str) -> SelfStop | None:
        return None


class SimBoxes:
    def __init__(self, world: World) -> None:
        self._world = world

    def pin(self, instance: str, run: str, host_keys: Sequence[str], host: str, port: int) -> None:
        self._world.box((host, port))

    def repin(
        self, instance: str, run: str, host_keys: Sequence[str], host: str, port: int
    ) -> bool:
        self._world.box((host, port))
        return False

    def shell(self, endpoint: Endpoint, run: str) -> SimShell:
        self._world.box((endpoint.host, endpoint.port))
        return SimShell(self._world, (endpoint.host, endpoint.port), run)

    def stream(self, endpoint: Endpoint, run: str, transfer: object = None) -> SimStream:
        self._world.box((endpoint.host, endpoint.port))
        return SimStream(self._world, (endpoint.host, endpoint.port))

    def expect(
        self, endpoint: Endpoint, run: str, size_bytes: int, transfer: object = None
    ) -> None:
        pass  # a connection takes no time here

    def expect_nothing(self, endpoint: Endpoint, run: str) -> None:
        pass

    def follow(
        self, endpoint: Endpoint, run: str, *, events: int, log: int, metrics: int, sights: int = 0
    ) -> SimFollower:
        return SimFollower(self._world, (endpoint.host, endpoint.port), events, metrics)

    def public_key(self) -> str:
        return "ssh-ed25519 AAAA"


class SimShell:
    def __init__(self, world: World, address: tuple[str, int], run: str) -> None:
        self._world = world
        self._address = address
        self._run = run

    def run(
        self, command: str, *, stdin: bytes = b"", timeout_s: float = 60.0, check: bool = True
    ) -> Completed:
        box = self._world.box(self._address)
        if "nvidia-smi" in command:
            return Completed(0, "".join(f"GPU {n}: sim\n" for n in range(8)), "")
        words = shlex.split(command)
        if "start" in words:
            box.name = words[words.index("--instance") + 1]
            self._start(box, int(words[words.index("--attempt") + 1]))
        if "stop" in words:
            number = int(words[words.index("--attempt") + 1])
            if number in box.attempts:
                box.attempts[number]["stopped"] = True
        return Completed(0, '{"v": 1}', "")

    def _start(self, box: Box, number: int) -> None:
        if self._world.faults.start:
            raise self._world.faults.start
        spec = json.loads(box.files[f".gpujob/{self._run}/attempts/{number}/spec.json"])
        source = spec["resume_step"] or 0
        if source:
            assert f"gpujob/{self._run}/out/checkpoint-{source}" in box.trees, (
                "resumes from nothing"
            )
        start = spec["env"]["GPUJOB_START"]
        assert not start or f"gpujob/{self._run}/{start}" in box.trees, "starts from nothing"
        if number not in box.attempts:
            assert all(each["rc"] is not None for each in box.attempts.values()), "two trainers"
            box.attempts[number] = {
                "from": source,
                "gained": 0,
                "began_s": self._world.now_s,
                "rc": None,
                "stopped": False,
                "phase": spec["env"]["GPUJOB_PHASE"],
            }
            box.fact("trainer.started", attempt=number, pid=1)

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None:
        self._world.box(self._address).files[path] = data

    def close(self) -> None:
        pass


class SimStream:
    def __init__(self, world: World, address: tuple[str, int]) -> None:
        self._world = world
        self._address = address

    def manifest(self, name: str, generation: int, size_bytes: int = 0) -> Manifest:
        return self._seal(name, generation).manifest

    def pull(
        self,
        name: str,
        generation: int,
        into: Path,
        manifest: Manifest,
        progress: Callable[[int], None],
    ) -> None:
        assert self._seal(name, generation).manifest == manifest
        if self._world.faults.pull:
            raise self._world.faults.pull
        progress(manifest.size_bytes)

    def ack(self, name: str, generation: int) -> None:
        if self._world.faults.ack:
            raise self._world.faults.ack
        self._seal(name, generation).acked = True

    def push(
        self,
        source: Path,
        manifest: Manifest,
        dest: str,
        mode: Literal["merge", "folder"],
        progress: Callable[[int], None],
    ) -> None:
        self._world.box(self._address).trees.add(dest)

    def restore(self, name: str, digest: str, dest: str, progress: Progress) -> None:
        box = self._world.box(self._address)
        for (known, _), seal in box.seals.items():
            if known == name and seal.manifest.digest == digest:
                box.trees.add(dest)
                return
        raise NotFound(f"{name} is not sealed here")

    def close(self) -> None:
        pass

    def _seal(self, name: str, generation: int) -> Seal:
        seals = self._world.box(self._address).seals
        if (name, generation) not in seals:
            raise NotFound(f"no seal {name}")
        return seals[name, generation]


class SimStore:
    """The volume over S3: as long as nothing is wrong, what boxes sealed on it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def manifest(self, base: str) -> Manifest:
        name, _, generation = base.rpartition("/")[2].rpartition(".")
        return self._seals()[name, int(generation)].manifest

    def found(self, prefix: str) -> list[tuple[str, Manifest]]:
        self._seals()
        return []

    def pull(
        self, base: str, into: Path, manifest: Manifest, progress: Callable[[int], None]
    ) -> None:
        self._seals()
        progress(manifest.size_bytes)

    def close(self) -> None:
        pass

    def _seals(self) -> dict[tuple[str, int], Seal]:
        if self._world.faults.store:
            raise self._world.faults.store
        return self._world.volume or {}


class SimFollower:
    """Tells what there is and then loses its link, so that every look is a reconnect."""

    def __init__(self, world: World, address: tuple[str, int], events: int, metrics: int) -> None:
        self._world = world
        self._address = address
        self._events = events
        self._metrics = metrics

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        box = self._world.box(self._address)
        # An offset here counts lines; a line before it is told again, as after a torn read.
        for end, line in enumerate(box.events, start=1):
            if end >= self._events:
                yield {"file": "events", "end": end, "line": line}
        yield {"file": "log", "offset": 0, "data": base64.b64encode(b"hello\n").decode()}
        new = bytes(box.metrics[self._metrics :])
        if new:
            data = base64.b64encode(new).decode()
            yield {"file": "metrics", "offset": self._metrics, "data": data}
        at = self._world.clock.now().isoformat()
        pulse = {"v": 1, "at": at, "free_bytes": self._world.free_bytes}
        yield {"heartbeat": pulse, "agent_alive": True}
        raise Unreachable("the link broke")

    def close(self) -> None:
        pass


@dataclass
class _Pending:
    fn: Callable[[TaskContext], Any]
    started_at: Any
    due_s: float
    state: TaskState = "running"
    result: Any = None
    error: Exception | None = None
    reports: list[Any] = field(default_factory=list)
    cancelled: bool = False


class SimTasks:
    """Runs each task in one go, at a moment that the seed chooses, in an order it chooses."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: dict[str, _Pending] = {}

    def start(self, key: str, fn: Callable[[TaskContext], Any]) -> bool:
        if key in self._tasks:
            return False
        due_s = self._world.now_s + self._world.random.uniform(0, 2)
        self._tasks[key] = _Pending(fn, self._world.clock.now(), due_s)
        return True

    def run_due(self) -> None:
        ready = [
            each
            for each in self._tasks.values()
            if each.state == "running" and each.due_s <= self._world.now_s
        ]
        self._world.random.shuffle(ready)
        for each in ready:
            self._run(each)

    def all(self, prefix: str = "") -> dict[str, Task]:
        return {
            key: Task(key, each.state, each.started_at, each.result, each.error)
            for key, each in self._tasks.items()
            if key.startswith(prefix)
        }

    def reports(self, key: str) -> list[Any]:
        each = self._tasks.get(key)
        if each is None:
            return []
        told, each.reports = each.reports, []
        return told

    def take(self, key: str) -> Task | None:
        each = self._tasks.get(key)
        if each is None or each.state == "running":
            return None
        del self._tasks[key]
        return Task(key, each.state, each.started_at, each.result, each.error)

    def cancel(self, key: str) -> None:
        if key in self._tasks:
            self._tasks[key].cancelled = True

    def forget(self, prefix: str) -> None:
        self._tasks = {key: each for key, each in self._tasks.items() if not key.startswith(prefix)}

    def _run(self, each: _Pending) -> None:
        context = TaskContext(each.reports.append, lambda: each.cancelled, lambda undo: None)
        try:
            if each.cancelled:
                raise Unreachable("cancelled")
            each.result = each.fn(context)
            each.state = "done"
        except Exception as error:
            each.error, each.state = error, "failed"


class SimMirror:
    """What is published, by digest; it survives the controller, as a disk does."""

    def __init__(self, folder: Path = Path("/mirror")) -> None:
        self.folder = folder
        self.published: dict[str, str] = {}
        self.blocked: StorageBlocked | None = None
        self.free_bytes = 10**12
        self.pruned: list[str] = []

    def holds(self, digest: str) -> Path | None:
        self._there()
        name = self.published.get(digest)
        return self.folder / name if name else None

    def manifest(self, digest: str) -> Manifest:
        return Manifest((FileEntry("weights", 1, digest, (digest,)),))

    def digests(self) -> frozenset[str]:
        self._there()
        return frozenset(self.published)

    @contextmanager
    def partial(self, manifest: Manifest) -> Iterator[Path]:
        yield self.folder / f"{manifest.digest}.partial"

    def sweep(self, wanted: Collection[str]) -> None:
        self._there()

    def publish(self, name: str, generation: int, manifest: Manifest) -> Path:
        self.room()
        self.published[manifest.digest] = name
        return self.folder / name

    def room(self, digest: str = "", size_bytes: int = 0) -> int:
        if self.blocked:
            raise self.blocked
        return self.free_bytes

    def _there(self) -> None:
        if self.blocked and self.blocked.reason == "missing":
            raise self.blocked

    def prune(self, digest: str) -> None:
        if self.published.pop(digest, None):
            self.pruned.append(digest)


NO_CAPACITY = NoCapacity("none left")
