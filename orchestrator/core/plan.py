"""The plan: fully resolved, printable intent. `launch --dry-run` prints the value that `launch`
executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from orchestrator.core.bandwidth import Transfer
from orchestrator.core.codec import from_json
from orchestrator.core.forecast import Forecast
from orchestrator.core.gate import Gate
from orchestrator.core.keep import Keep
from orchestrator.core.offer import Need, Offer, Rental
from orchestrator.core.run import Handover, Limits, Recovery, Source
from orchestrator.core.settings import Batch
from remote.contract import Manifest

PLAN_VERSION = 2


@dataclass(frozen=True)
class Upload:
    """A tree that goes to the box: from `source` here to `dest` below the work folder.

    `manifest` is the tree as it was at launch: what runs is what was launched.
    """

    what: Literal["code", "data"]
    source: str
    dest: str
    files: int
    size_bytes: int
    digest: str
    manifest: Mapping[str, Any] = field(repr=False)
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def tree(self) -> Manifest:
        return Manifest.from_json(dict(self.manifest))


@dataclass(frozen=True)
class ResumePlan:
    """How the trainer is told where to go on, with the placeholders of the job file."""

    args: str
    env: Mapping[str, str]
    place: str

    @property
    def told(self) -> bool:
        """Whether the job file says anything of it."""
        return bool(self.args or self.env or self.place)


@dataclass(frozen=True)
class PushPlan:
    """Where boxes push checkpoints to: s3://bucket/prefix, on Amazon's server unless another is
    named."""

    uri: str
    endpoint_url: str = ""
    region: str = ""


@dataclass(frozen=True)
class CheckpointPlan:
    """Where the trainer writes checkpoints (below the work folder), where they arrive here, and
    where else they go. `rule` is the layout that the job file describes itself."""

    path: str
    layout: str
    mirror: str
    resume: ResumePlan
    also: PushPlan | None = None
    keep: Keep | None = None
    transfer: Transfer | None = None
    rule: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Given:
    """A checkpoint in the mirror folder of an earlier run, for a launch that begins at a later
    phase. `note` is what a person should know of the phase that made it."""

    run: str
    mirror: str
    source: Source
    note: str = ""


@dataclass(frozen=True)
class StartPlan:
    """Which checkpoint of an earlier phase this one starts from. `resume`: the trainer goes on from
    it; `path`: it lies at `place`, below the work folder, and the trainer is told so by {start}."""

    phase: str
    checkpoint: str
    how: Handover
    place: str
    given: Given | None = None


@dataclass(frozen=True)
class Stage:
    """As much of a phase as `decide` has to know. `saves_on_stop`: SIGTERM makes its trainer save
    before it ends. `warm_starts`: it takes a checkpoint that has weights alone. `asks_oom`: a
    person is asked when it ended for want of a GPU's memory."""

    name: str
    offers: tuple[Offer, ...]
    key: str = ""
    gated: bool = False
    stop_after_steps: int | None = None
    saves_on_stop: bool = False
    warm_starts: bool = True
    hold_s: float = 600.0
    start: StartPlan | None = None
    disk_gb: int = 0
    rental: Rental = field(default_factory=Rental)
    asks_oom: bool = False


@dataclass(frozen=True)
class PatchedFile:
    """A file of the code that this phase gets with other values under the keys `changed`. `text` is
    the file as it gets it; of a run on record it lies in the run's folder, and not in the ledger:
    who knows what stands in it."""

    path: str
    changed: tuple[str, ...] = ()
    text: str = field(default="", repr=False)

    def place(self, folder: Path, index: int) -> Path:
        """Where in the run's `folder` the file of the phase `index` is kept."""
        return folder / "patched" / str(index) / self.path


@dataclass(frozen=True)
class PhasePlan:
    """All of one phase: its machine, what travels, what runs, and what must hold before the next.

    `key` is what a verdict of its gate holds for. `recovery` are its own budgets. `hold_s` is how
    long its box is kept while a person is waited for; its trainer may be silent for `hang_s`.
    `health` is the job file's answer to the health rules, as JSON. Its boxes get its `secrets`.
    `batch` is None where its settings do not say it. Of a full run that goes on from a phase that
    was stopped, `changed` are the settings that it has otherwise; None is nothing to compare."""

    name: str
    need: Need
    offers: tuple[Offer, ...]
    uploads: tuple[Upload, ...]
    env: Mapping[str, str]
    setup: str
    command: str
    train: Mapping[str, Any] | None
    checkpoints: CheckpointPlan
    rental: Rental = field(default_factory=Rental)
    recovery: Recovery = field(default_factory=Recovery)
    orphan_s: float = 3600.0
    hang_s: float = 1200.0
    disk: Forecast | None = None
    here_free_bytes: int | None = None
    stop_after_steps: int | None = None
    gate: Gate | None = None
    start: StartPlan | None = None
    patch: tuple[PatchedFile, ...] = ()
    health: Mapping[str, Any] = field(default_factory=dict)
    hold_s: float = 600.0
    key: str = ""
    secrets: tuple[str, ...] = ()
    batch: Batch | None = None
    changed: tuple[str, ...] | None = None

    @property
    def offer(self) -> Offer:
        """The offer that is tried first."""
        return self.offers[0]

    @property
    def stage(self) -> Stage:
        """What `decide` has to know of it."""
        return Stage(
            name=self.name,
            offers=self.offers,
            key=self.key,
            gated=self.gate is not None,
            stop_after_steps=self.stop_after_steps,
            saves_on_stop=self.train is not None,
            warm_starts=bool(self.checkpoints.resume.told or "{checkpoint}" in self.command),
            hold_s=self.hold_s,
            start=self.start,
            disk_gb=self.need.disk_gb if self.need else 0,
            rental=self.rental,
            asks_oom=self.health.get("oom") == "ask",
        )


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do, before it has an id. `folder` is the job file's; paths on
    this machine are absolute. `limits` are those of the whole run, `secrets` all that any phase
    names."""

    v: int
    name: str
    folder: str
    limits: Limits
    secrets: tuple[str, ...]
    phases: tuple[PhasePlan, ...]

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(each.stage for each in self.phases)

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Whatever any phase may rent."""
        return tuple(offer for each in self.phases for offer in each.offers)

    def world_size(self, offer_id: str) -> int:
        """How many ranks train on an instance of this offer."""
        return next(offer.count for offer in self.offers if offer.id == offer_id)

    def code_folder(self, upload: Upload) -> str:
        """Where in the run's folder the snapshot of this code is kept: equal code is kept once."""
        first = next(each for each in self.phases[0].uploads if each.what == "code")
        return "code" if upload.digest == first.digest else f"code-{upload.digest[:12]}"

    @property
    def ceiling_usd(self) -> float | None:
        """The most the run may cost; None when the job file sets no budget that bounds it."""
        limits, price = self.limits, max(offer.usd_per_hour for offer in self.offers)
        bounds = [
            limits.budget_usd,
            None if limits.budget_hours is None else limits.budget_hours * price,
        ]
        if price == 0:
            return 0.0
        return min((bound for bound in bounds if bound is not None), default=None)


def read_plan(record: Mapping[str, Any]) -> Plan:
    """The plan of a run on record; one of before phases (v 1) is a plan of one phase."""
    return from_json(Plan, record if "phases" in record else _of_one_phase(record))


def _of_one_phase(record: Mapping[str, Any]) -> dict[str, Any]:
    whole = {name: record[name] for name in ("v", "name", "folder", "limits", "secrets")}
    rest = {name: value for name, value in record.items() if name not in whole}
    limits = record["limits"]
    recovery = {"host_loss": limits["host_loss"], "crash": limits["crash"]}
    only = {**rest, "name": record["phase"], "recovery": recovery, "secrets": record["secrets"]}
    return {**whole, "phases": [only]}
