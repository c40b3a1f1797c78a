"""The plan: fully resolved, printable intent. `launch --dry-run` prints the value that `launch`
executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.core.bandwidth import Transfer
from orchestrator.core.forecast import Forecast
from orchestrator.core.keep import Keep
from orchestrator.core.offer import Need, Offer, Rental
from orchestrator.core.run import Limits
from remote.contract import Manifest

PLAN_VERSION = 1


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
class Plan:
    """Everything that a run will do, before it has an id. `folder` is the job file's; paths on
    this machine are absolute."""

    v: int
    name: str
    folder: str
    phase: str
    need: Need
    offers: tuple[Offer, ...]
    limits: Limits
    uploads: tuple[Upload, ...]
    secrets: tuple[str, ...]
    env: Mapping[str, str]
    setup: str
    command: str
    train: Mapping[str, Any] | None
    checkpoints: CheckpointPlan
    rental: Rental = field(default_factory=Rental)
    orphan_s: float = 3600.0
    disk: Forecast | None = None
    here_free_bytes: int | None = None

    @property
    def offer(self) -> Offer:
        """The offer that is tried first."""
        return self.offers[0]

    def world_size(self, offer_id: str) -> int:
        """How many ranks train on an instance of this offer."""
        return next(offer.count for offer in self.offers if offer.id == offer_id)

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
