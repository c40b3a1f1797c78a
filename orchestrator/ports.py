"""What the flows need from the outside world, and what each adapter promises.

The port states the promise: when a method returns, what absence means, whether it may be
repeated, what it raises. The suites in `tests/contract/` examine every adapter against it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator.core.bandwidth import Transfer
from orchestrator.core.offer import BootPhase, Need, Offer, Rental
from orchestrator.core.run import Event, Lease, Run
from remote.contract import Fact, Manifest


@dataclass(frozen=True)
class Endpoint:
    """Where a box answers ssh, and under which name its host key is pinned."""

    instance: str
    host: str
    port: int
    user: str


@dataclass(frozen=True)
class CreateRequest:
    """`mark` names the installation, run and instance; the box carries it from birth."""

    instance: str
    mark: str
    offer: Offer
    public_key: str
    disk_gb: int
    rental: Rental = field(default_factory=Rental)


InstanceState = Literal["PENDING", "RUNNING", "BROKEN"]


@dataclass(frozen=True)
class ProviderInstance:
    """One instance as its provider tells it. What is not listed is GONE.

    RUNNING means that host, port and user are known; until then `phase` says how far the boot
    is. `usd_per_hour` is what it costs now: 0 while the provider bills nothing, NaN
    when nobody knows. A
    `restart_marker` that changed means that the processes on the box are gone. `detail` is the
    vendor's own word, for a person.
    """

    provider_id: str
    mark: str
    state: InstanceState
    created_at: datetime
    usd_per_hour: float
    host: str | None = None
    port: int | None = None
    user: str | None = None
    restart_marker: str = ""
    detail: str = ""
    phase: BootPhase = "ready"


@dataclass(frozen=True)
class Listing:
    """Everything that carried our marks at `listed_at`; `others` are the provider ids of what was
    listed without one that could be read: it is there, whoever's it is. `key_id` is that of the
    key it was asked with: another account's list says nothing about what is not in it."""

    listed_at: datetime
    instances: tuple[ProviderInstance, ...]
    others: frozenset[str] = frozenset()
    key_id: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What a provider can do, as data.

    `poll_s` is how often it is listed while something is about to change, `idle_poll_s` while
    all is quiet. An instance is gone when its listings have lacked it for `absent_s`, the first
    of them asked `listing_lag_s` or later after its create. `boot_s` bounds each phase of the
    boot. What it bills is rounded up to `billing_unit_s`. `login_file` is a file on the box that a
    login sources and a plain command does not. `keeps_disk` when a restart leaves the disk as it
    was. `volume_s3` is where a volume answers S3 with its id as the bucket; {region} stands in it.
    """

    self_stop: bool = False
    host_keys: bool = False
    poll_s: float = 15.0
    idle_poll_s: float = 15.0
    listing_lag_s: float = 0.0
    absent_s: float = 0.0
    boot_s: Mapping[BootPhase, float] = field(default_factory=dict)
    billing_unit_s: float = 1.0
    login_file: str = ""
    keeps_disk: bool = False
    volume_s3: str = ""

    @property
    def boot_deadline_s(self) -> float:
        """How long a boot may take in all."""
        return sum(self.boot_s.values()) or 600.0


@dataclass(frozen=True)
class Account:
    """Who pays, and what is left; None is what the provider does not tell."""

    provider: str
    who: str
    balance_usd: float | None = None
    spend_usd_per_hour: float | None = None
    note: str = ""


@dataclass(frozen=True)
class SelfStop:
    """The HTTP request by which a box may stop itself, with a token that it finds in its own
    environment under the name `token_variable`: never one of ours."""

    method: str
    url: str
    body: Mapping[str, Any]
    token_variable: str


class Provider(Protocol):
    """Rents machines. Every method may block for seconds: call it from a task."""

    name: str
    capabilities: Capabilities

    def offers(self, need: Need) -> Sequence[Offer]:
        """Offers that fit `need`, unordered, one for each place where it may be rented; empty
        when nothing fits. Raises Transient, Refused."""
        ...

    def create(self, request: CreateRequest) -> str:
        """Rent one instance and return its provider id, without waiting for it to run.

        Never sent twice: NoCapacity, Refused and Transient promise that nothing was rented;
        after LostAnswer the caller lists, for `listing_lag_s`, before it creates anything.
        """
        ...

    def list(self) -> Listing:
        """Every instance with a gpujob mark, also foreign ones. Repeatable.

        Absence means gone, see `Capabilities`. Raises Transient, Refused: knows nothing.
        """
        ...

    def terminate(self, provider_id: str) -> None:
        """Ask for the end of an instance; gone already is success. Repeatable.

        The proof is its absence from a later `list()`, not the return. Raises Transient, Refused.
        """
        ...

    def ensure_access(self, provider_id: str, public_key: str) -> None:
        """Make the box accept the key, where the provider can. Repeatable."""
        ...

    def host_keys(self, provider_id: str) -> Sequence[str]:
        """The box's public host keys ("ssh-ed25519 AAAA…") or their fingerprints ("SHA256:…");
        empty when the provider cannot say."""
        ...

    def logs(self, provider_id: str) -> str:
        """What the machine printed, at most 64 KiB, for a person to read; may be empty."""
        ...

    def account(self) -> Account:
        """Whose account the key opens. Raises Refused for a key that is wrong, Transient."""
        ...

    def key_id(self) -> str:
        """A sign of the key in force that does not give it away; empty where there is no key.
        Asks nobody. Raises Refused."""
        ...

    def self_stop(self, provider_id: str) -> SelfStop | None:
        """How the box may stop its own billing; None where that is not possible. Asks nobody."""
        ...


@dataclass(frozen=True)
class Completed:
    """A remote command's result; both outputs are cut at 1 MiB."""

    rc: int
    stdout: str
    stderr: str


class Shell(Protocol):
    """Commands on one box, over one authenticated connection to a pinned host key."""

    def run(
        self, command: str, *, stdin: bytes = b"", timeout_s: float = 60.0, check: bool = True
    ) -> Completed:
        """Run `command` with the box's login environment and return when it ended.

        With `check`, a non-zero end raises CommandFailed. Raises Unreachable, HostKeyChanged.
        """
        ...

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None:
        """Write a small file (≤ 8 MiB) whole or not at all; `path` below the home folder or
        absolute. The bytes travel in the channel, never in a command line. Repeatable."""
        ...

    def close(self) -> None: ...


class Moved(int):
    """Bytes that are verified so far, those of earlier tries included; a number like any other,
    which may also tell how they move: over how many connections (`streams`), how fast
    (`bytes_per_s`), and whether the job's own cap lets nothing through now (`is_paused`)."""

    streams: int = 0
    bytes_per_s: float = 0.0
    is_paused: bool = False


# Told the bytes that are verified so far, those of earlier tries included; perhaps as `Moved`.
Progress = Callable[[int], None]


class Stream(Protocol):
    """Trees of files to and from one box, by manifest: verified, resumable, atomic.

    Every method may be repeated after any failure and sends again only what is missing.
    Raises Unreachable, IntegrityError.
    """

    def manifest(self, name: str, generation: int, size_bytes: int = 0) -> Manifest:
        """The manifest of a sealed checkpoint. `size_bytes` is how much `pull` will move next, as
        far as is known: what that needs is begun meanwhile."""
        ...

    def pull(
        self, name: str, generation: int, into: Path, manifest: Manifest, progress: Progress
    ) -> None:
        """Fill the folder `into` (a `.partial`, kept across failures) with the checkpoint's
        files, each verified against `manifest` and fsynced."""
        ...

    def ack(self, name: str, generation: int) -> None:
        """Tell the box that the checkpoint is held durably here: it may forget it."""
        ...

    def push(
        self,
        source: Path,
        manifest: Manifest,
        dest: str,
        mode: Literal["merge", "folder"],
        progress: Progress,
    ) -> None:
        """Make `dest` on the box hold the manifest's files, read from below `source`."""
        ...

    def restore(self, name: str, digest: str, dest: str, progress: Progress) -> None:
        """Build `dest` on the box from a checkpoint with this digest that it still holds sealed.
        `progress` is told the bytes that are in place so far.

        Raises NotFound when it holds none."""
        ...

    def close(self) -> None: ...


class Follower(Protocol):
    """What an agent says, as it says it. Iterating blocks; `close` from another thread ends it."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """JSON objects of formats.md §7 `follow`; ends or raises Unreachable when the link dies."""
        ...

    def close(self) -> None: ...


class Boxes(Protocol):
    """Opens the three ways to a box. Each raises Unreachable or HostKeyChanged."""

    def pin(self, instance: str, run: str, host_keys: Sequence[str], host: str, port: int) -> None:
        """Record the box's host key: what `host_keys` (keys or fingerprints) says when the
        provider told it, else the key that answers first. A different key afterwards is
        HostKeyChanged. Repeatable."""
        ...

    def repin(
        self, instance: str, run: str, host_keys: Sequence[str], host: str, port: int
    ) -> bool:
        """Look at who answers there now. False when it has the pinned key. With another one that
        `host_keys` tells, the box was made anew: pin that and return True. Raises HostKeyChanged
        when nobody but the box itself vouches for it; the pin stays as it was."""
        ...

    def shell(self, endpoint: Endpoint, run: str) -> Shell: ...

    def stream(self, endpoint: Endpoint, run: str, transfer: Transfer | None = None) -> Stream:
        """All streams of one run that were opened with a cap keep it together."""
        ...

    def expect(
        self, endpoint: Endpoint, run: str, size_bytes: int, transfer: Transfer | None = None
    ) -> None:
        """A checkpoint of about this size will be asked for there soon: begin to connect for the
        next stream to that box. Returns at once, raises nothing, and may be repeated."""
        ...

    def expect_nothing(self, endpoint: Endpoint, run: str) -> None:
        """Give back what `expect` made and no stream took. Repeatable."""
        ...

    def follow(
        self, endpoint: Endpoint, run: str, *, events: int, log: int, metrics: int, sights: int = 0
    ) -> Follower: ...

    def public_key(self) -> str:
        """The installation's public key, made at first use."""
        ...


class Ledger(Protocol):
    """The events. A write that returned is durable (survives power loss)."""

    id: str

    def create(self, run: str, plan: Mapping[str, Any], planned: Mapping[str, Any]) -> None:
        """Record a new run and its `planned` event. Raises LedgerError when the id is taken."""
        ...

    def append(
        self, run: str, kind: str, data: Mapping[str, Any], *, epoch: int | None = None
    ) -> Event:
        """Append one event and refold, in one transaction. Only requests go without an epoch.

        Raises StaleLease when `epoch` is not the lease's newest."""
        ...

    def append_fact(
        self,
        run: str,
        fact: Fact,
        end: int,
        event: tuple[str, Mapping[str, Any]] | None,
        *,
        epoch: int,
    ) -> bool:
        """Record a box's fact, whose line ends at offset `end`, and the event it stands for, if
        any, in one transaction. False, and nothing is written, when it was told before."""
        ...

    def fact_offset(self, run: str, instance: str) -> int:
        """Where in the box's `events.jsonl` the facts that the ledger has not seen begin."""
        ...

    def events(self, run: str, after: int = 0) -> list[Event]: ...

    def run(self, run: str) -> Run:
        """The cached fold. Raises NotFound."""
        ...

    def runs(self) -> list[Run]:
        """Newest first."""
        ...

    def active(self) -> list[str]:
        """The ids of the runs that are not terminal, oldest first."""
        ...

    def plan(self, run: str) -> dict[str, Any]: ...

    def acquire(self, run: str) -> Lease | None:
        """The right to act on `run`, with a new epoch; None while a living holder has it.

        On one host a holder is boot id + pid + start time, and a dead one is succeeded at once."""
        ...

    def release(self, lease: Lease) -> None: ...


@dataclass(frozen=True)
class StorePlace:
    """A bucket, on Amazon's server unless another is named; `keys` is the file that opens it
    (NAME=value lines: KEY_ID, SECRET, TOKEN)."""

    bucket: str
    endpoint_url: str
    region: str
    keys: Path


class Store(Protocol):
    """Sealed checkpoints in one bucket, each below a key of its own: `tree/` and
    `manifest.json`, without which it is none.

    Every method may be repeated after any failure. Raises Transient (again), Refused (keys,
    rights), NotFound, IntegrityError.
    """

    def manifest(self, base: str) -> Manifest: ...

    def found(self, prefix: str) -> Sequence[tuple[str, Manifest]]:
        """The whole checkpoints one level below `prefix`, by key; what is none is passed over."""
        ...

    def pull(self, base: str, into: Path, manifest: Manifest, progress: Progress) -> None:
        """As `Stream.pull`."""
        ...

    def close(self) -> None:
        """From any thread: what is under way ends with Transient."""
        ...


@dataclass(frozen=True)
class Held:
    """A published checkpoint and the manifest it was verified against."""

    path: Path
    manifest: Manifest


class Mirror(Protocol):
    """One run's mirror folder: a checkpoint is in it complete and verified, or not at all.

    Every method raises StorageBlocked while the folder or its disk cannot be used: that says
    nothing about what it holds."""

    def holds(self, digest: str) -> Path | None:
        """Where the tree with this digest is published; None when it is not, or not intact."""
        ...

    def manifest(self, digest: str) -> Manifest:
        """The manifest that a published tree was verified against. Raises NotFound."""
        ...

    def digests(self) -> frozenset[str]:
        """The digests of what is published; nothing is read for that."""
        ...

    def partial(self, manifest: Manifest) -> AbstractContextManager[Path]:
        """The folder that a transfer of this tree fills, kept across failures; what an earlier
        checkpoint holds as well is in it already. It is the caller's alone until the context
        ends: publish within. Raises Transient while another transfer has it."""
        ...

    def publish(self, name: str, generation: int, manifest: Manifest) -> Path:
        """Move the filled partial to its name, durably, and return where it is.

        The same bytes there already is success; other bytes are never overwritten.
        Raises IntegrityError when the partial is not what the manifest says."""
        ...

    def sweep(self, wanted: Collection[str]) -> None:
        """Forget what transfers of other trees than those with the digests `wanted` left."""
        ...

    def room(self, digest: str = "", size_bytes: int = 0) -> int:
        """The bytes that may still be stored. Raises StorageBlocked when nothing can be written,
        or when what is still missing of the tree with this digest does not fit."""
        ...

    def prune(self, digest: str) -> None:
        """Delete the published tree with this digest, durably; no part of it is ever seen. One
        that is not there is success."""
        ...


@dataclass(frozen=True)
class Scan:
    """The files of a tree that travel, as sorted POSIX paths below its root, and those that were
    left out although nothing asked for it, each with the reason."""

    paths: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Checkout:
    """What a git repository has checked out; `branch` is empty where none is."""

    branch: str
    commit: str


class Trees(Protocol):
    """Local trees of files."""

    def scan(self, root: Path, exclude: Sequence[str], *, ignore_files: bool) -> Scan:
        """What travels: all but what .gitignore and .gpujobignore (with `ignore_files`) and
        `exclude` name, and never .git, .env or key files. A file is a tree of one."""
        ...

    def manifest(self, root: Path, scan: Scan) -> Manifest:
        """Hash the files; a file whose size and mtime are known is not read again."""
        ...

    def snapshot(self, root: Path, manifest: Manifest, dest: Path) -> None:
        """Copy the files to `dest`, durably. Raises IntegrityError when one has changed."""
        ...


TaskState = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class Task:
    """A task as the scheduler sees it at a step; `result` when done, `error` when failed."""

    key: str
    state: TaskState
    started_at: datetime
    result: Any = None
    error: Exception | None = None


@dataclass
class TaskContext:
    """What a task function is handed: where to report, and whether to give up."""

    report: Callable[[Any], None]
    cancelled: Callable[[], bool]
    on_cancel: Callable[[Callable[[], None]], None]


class Tasks(Protocol):
    """Work that takes longer than a step. One task a key; a finished one stays until taken."""

    def start(self, key: str, fn: Callable[[TaskContext], Any]) -> bool:
        """Start `fn` unless a task of this key is there; whether it was started."""
        ...

    def all(self, prefix: str = "") -> dict[str, Task]: ...

    def reports(self, key: str) -> list[Any]:
        """What the task reported since the last call, oldest first."""
        ...

    def take(self, key: str) -> Task | None:
        """Remove and return a finished task."""
        ...

    def cancel(self, key: str) -> None:
        """Tell a running task to end; its result is still there to take."""
        ...

    def forget(self, prefix: str) -> None:
        """Cancel the tasks of this prefix and never tell what became of them."""
        ...


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def wait(self, timeout_s: float) -> None:
        """Return after `timeout_s` or when `wake` is called. Called by the scheduler loop alone."""
        ...

    def wake(self) -> None: ...


__all__ = [
    "Account",
    "Boxes",
    "Capabilities",
    "Clock",
    "Completed",
    "CreateRequest",
    "Endpoint",
    "Follower",
    "Held",
    "InstanceState",
    "Ledger",
    "Listing",
    "Mirror",
    "Moved",
    "Progress",
    "Provider",
    "ProviderInstance",
    "Scan",
    "SelfStop",
    "Shell",
    "Store",
    "StorePlace",
    "Stream",
    "Task",
    "TaskContext",
    "TaskState",
    "Tasks",
    "Trees",
]
