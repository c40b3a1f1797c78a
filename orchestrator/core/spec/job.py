"""The job: the whole of the job file as one frozen value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr

from orchestrator.core.spec.checkpoints import Checkpoints, Patch
from orchestrator.core.spec.model import (
    Amount,
    AmountOrZero,
    Flag,
    Model,
    Name,
    Text,
    Variable,
    Whole,
    WholeOrZero,
    check_parts,
)
from orchestrator.core.spec.resources import Budget, Resources
from orchestrator.core.spec.tokens import holds_token
from orchestrator.core.spec.training import Train

REMOTE_SCHEMES = ("s3", "https", "hf")
LEAST_ORPHAN_MINUTES = 0.2
Reaction = Literal["stop", "warn", "off"]


def _check_source(text: str) -> str:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme and scheme[1] not in REMOTE_SCHEMES:
        raise ValueError("must be a local path, or begin with s3://, https:// or hf://")
    return text


def _check_place(text: str) -> str:
    check_parts(text)
    if text.startswith("~"):
        raise ValueError("must be relative to the work folder, not to a home folder")
    return text


def _check_secret(text: str) -> str:
    if "=" in text:
        raise ValueError(
            "write the name alone, without = and a value; the value comes from the environment,"
            " a .env file or the keyring"
        )
    if holds_token(text) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", text):
        raise ValueError("write the name of a variable, such as HF_TOKEN; this is not a name")
    return text


def _check_orphan(minutes: float) -> float:
    """A box hears of a controller that lives every few seconds, and not more often."""
    if 0 < minutes < LEAST_ORPHAN_MINUTES:
        raise ValueError(f"must be 0 (never) or at least {LEAST_ORPHAN_MINUTES}")
    return minutes


def _check_outputs(text: str) -> str:
    return check_parts(text)


class Code(Model):
    """The folder that travels to the box. `.git`, `.env` and key files in it never do."""

    path: Text = "."
    """Folder, relative to this file."""
    exclude: tuple[Text, ...] = ()
    """Patterns in .gitignore's language, on top of .gitignore and .gpujobignore."""


class DataItem(Model):
    """One file or folder that the run reads."""

    source: Annotated[Text, AfterValidator(_check_source)] = Field(alias="from")
    """A local path relative to this file, or s3://, https://, hf:// (fetched by the box)."""
    to: Annotated[Text, AfterValidator(_check_place)]
    """Where it is put, relative to the work folder."""


class Recovery(Model):
    """How often a run is picked up again before it fails."""

    host_loss: WholeOrZero = 10
    """Instances that may be lost: the host's fault."""
    crash: WholeOrZero = 2
    """Times the trainer may crash: the user's fault."""
    hang_minutes: Amount = 20.0
    """Silence after which the trainer counts as hung."""
    keep_failed_minutes: AmountOrZero = 0.0
    """How long the box of a failed run is kept for a look; it bills."""
    orphan_minutes: Annotated[AmountOrZero, AfterValidator(_check_orphan)] = 60.0
    """Without a word from gpujob for so long, a box whose trainer has ended stops itself where
    its provider lets it; 0: never."""


class Health(Model):
    """What to do when training goes wrong: stop, warn or off."""

    nan: Reaction = "stop"
    """The loss is NaN or infinite."""
    oom: Reaction = "stop"
    """Out of GPU memory."""
    loss_flat: Reaction = "warn"
    """The loss does not fall."""
    grad_explosion: Reaction = "warn"
    """The gradient norm explodes."""
    low_gpu: Reaction = "warn"
    """The GPUs idle."""


class LossDrop(Model):
    """How far the loss must have fallen."""

    percent: Annotated[float, Field(strict=True, gt=0, le=100)]
    """Of the first loss."""
    within_steps: Whole
    """By this step."""
    extend_to: Whole | None = None
    """Undecided: look again until this step."""


class Gate(Model):
    """GO or NO-GO after a phase."""

    loss_drop: LossDrop | None = None
    """How far the loss must have fallen."""
    no_red_flags: Flag = False
    """No health rule may have fired."""


class Phase(Model):
    """A named part of a run. Any other key of the job may stand here and overlays it."""

    model_config = ConfigDict(extra="allow")

    name: Name
    """The phase's name."""
    stop_after_steps: Whole | None = None
    """Stop the trainer after this many steps."""
    gate: Gate | None = None
    """What must hold before the next phase begins."""


class Job(Model):
    """A job file: what to train, on what, for how much, and where its checkpoints go."""

    name: Name
    """Names the run, its instances and its mirror."""
    resources: Resources = Resources()
    """The machine that the run needs."""
    budget: Budget = Budget()
    """What the run may cost."""
    code: Code = Code()
    """What of yours is uploaded."""
    data: tuple[DataItem, ...] = ()
    """Files and folders that the run reads."""
    secrets: tuple[Annotated[str, AfterValidator(_check_secret)], ...] = ()
    """Names of variables; values come from the environment, a .env file or the keyring."""
    env: dict[Variable, str] = Field(default={})
    """Variables of the trainer, passed as typed; no secrets."""
    patch: Patch = Field(default={})
    """Keys to set in a YAML or JSON file of yours in the uploaded copy: {file: {key: value}}."""
    setup: Text | None = None
    """Shell text that prepares the box, before the first attempt on it."""
    run: Text | None = None
    """Shell text that trains. Placeholders: see the guide."""
    train: Train | None = None
    """Our own trainer, instead of `run`."""
    checkpoints: Checkpoints
    """Where checkpoints are written and where they go."""
    outputs: tuple[Annotated[Text, AfterValidator(_check_outputs)], ...] = ()
    """Globs of other files that are mirrored."""
    recovery: Recovery = Recovery()
    """How often a run is picked up again."""
    health: Health = Health()
    """What to do when training goes wrong."""
    notify: tuple[Annotated[str, Field(pattern=r"^[a-z]+://")], ...] = ()
    """Addresses that hear of the run's end, such as mailto://you@example.org."""
    phases: tuple[Phase, ...] = ()
    """Parts that run one after the other; each overlays the keys above."""

    _base: Path = PrivateAttr(default=Path())

    @property
    def base(self) -> Path:
        """The folder of the job file; relative paths in it begin here. Not serialised."""
        return self._base

    def at(self, base: Path) -> Job:
        """This job with `base` as its folder."""
        copy = self.model_copy()
        copy._base = base
        return copy

    def local(self, text: str) -> Path:
        """A local path of the job file (`~` is the home folder), as a path of this machine."""
        return self.base / Path(text).expanduser()
