"""The job: the whole of the job file as one frozen value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, model_validator

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
    WorkPath,
    check_parts,
)
from orchestrator.core.spec.resources import Budget, Resources
from orchestrator.core.spec.tokens import holds_token
from orchestrator.core.spec.training import Train

REMOTE_SCHEMES = ("s3", "https", "hf")
LEAST_ORPHAN_MINUTES = 0.2
ONLY_PHASE = "main"
Reaction = Literal["stop", "warn", "ask", "off"]
HangReaction = Literal["restart", "stop", "warn", "ask", "off"]
Limit = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Limited = TypeVar("Limited", "OwnRule", "MetricGate")


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


def _check_wanted(text: str) -> str:
    if "/" in text or ":" in text:
        raise ValueError("write latest, best, final, or a checkpoint's name alone")
    return text


def _check_one_limit(rule: Limited) -> Limited:
    if (rule.above is None) == (rule.below is None):
        raise ValueError("write above or below, one of them")
    return rule


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
    """Silence after which a trainer that makes steps counts as hung, when its machine idles too;
    loading, saving and the like have at least as long."""
    keep_failed_minutes: AmountOrZero = 0.0
    """How long the box of a failed run is kept for a look; it bills."""
    orphan_minutes: Annotated[AmountOrZero, AfterValidator(_check_orphan)] = 60.0
    """Without a word from gpujob for so long, a box whose trainer has ended stops itself where
    its provider lets it; 0: never."""


class OwnRule(Model):
    """A rule of your own: a metric that stays above or below a limit."""

    metric: Text
    """By the trainer's name for it, or loss, grad_norm, learning_rate, tokens_per_s."""
    above: Limit | None = None
    """Fires above this."""
    below: Limit | None = None
    """Fires below this."""
    for_steps: Whole = 1
    """Only when it was so for this many steps."""
    action: Reaction = "warn"
    """What to do then."""
    name: Text | None = None
    """What it is called in reports."""

    _one_limit = model_validator(mode="after")(_check_one_limit)


class Health(Model):
    """What to do when training goes wrong: stop, warn, ask or off. See docs/health.md."""

    nan: Reaction = "stop"
    """The loss is NaN or infinite."""
    oom: Reaction = "stop"
    """Out of GPU memory."""
    loss_flat: Reaction = "warn"
    """The loss does not fall."""
    loss_erratic: Reaction = "warn"
    """The loss jumps or climbs."""
    grad_explosion: Reaction = "warn"
    """The gradient norm explodes."""
    low_gpu: Reaction = "warn"
    """The GPUs idle."""
    hang: HangReaction = "restart"
    """No step, no output, and a machine that idles; dumped before anything is ended."""
    slow: Reaction = "warn"
    """Half as fast as planned, or as it was."""
    resume_ignored: Reaction = "stop"
    """A resume that began from scratch."""
    checkpoint_missing: Reaction = "warn"
    """Checkpoints that do not come, or are not whole."""
    over_cost: Reaction = "warn"
    """A phase that costs more than it was to."""
    not_distributed: Reaction = "stop"
    """Ranks that do not find one another, ZeRO that is not on."""
    recipe: Reaction = "warn"
    """What belongs to one method alone: preferences, discriminators, their settings."""
    rules: tuple[OwnRule, ...] = ()
    """Rules of your own."""


class LossDrop(Model):
    """How far the loss must have fallen."""

    percent: Annotated[float, Field(strict=True, gt=0, le=100)]
    """Of the first loss."""
    within_steps: Whole
    """By this step."""
    extend_to: Whole | None = None
    """Undecided: look again until this step."""


class MetricGate(Model):
    """A metric whose last value must be above or below a limit."""

    metric: Text
    """By the trainer's name for it, such as eval_loss."""
    above: Limit | None = None
    """It must be above this."""
    below: Limit | None = None
    """It must be below this."""
    from_step: Whole | None = None
    """Judged from this step on."""

    _one_limit = model_validator(mode="after")(_check_one_limit)


class EvaluationGate(Model):
    """A JSON file of metrics that the phase writes, better than another one of the same shape."""

    file: WorkPath
    """The phase's evaluation, relative to the work folder."""
    baseline: WorkPath
    """What it is compared with, relative to the work folder."""
    metric: Text
    """The key of both that is compared."""
    improve_percent: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.0
    """At least so much better."""
    mode: Literal["min", "max"] | None = None
    """Whether the lowest or the highest is best; by the metric's name when absent."""
    confident: Flag = False
    """The 90 % interval over the files' `cells` must exclude no gain."""
    least_parse_rate: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    """The least `parse_rate` of both."""


class CostGate(Model):
    """What the phase may have cost."""

    usd: Amount
    """More than this is NO-GO."""


class Gate(Model):
    """GO or NO-GO after a phase."""

    loss_drop: LossDrop | None = None
    """How far the loss must have fallen."""
    no_red_flags: Flag = False
    """No health rule may have fired."""
    require: tuple[Text, ...] = ()
    """Rules (by id or by name) that must pass: one that cannot be observed does not."""
    metrics: tuple[MetricGate, ...] = ()
    """Metrics that must be above or below a limit."""
    evaluation: EvaluationGate | None = None
    """An evaluation that must be better than a baseline."""
    cost: CostGate | None = None
    """What the phase may have cost."""
    approve: Flag = False
    """A person has to say yes."""


class StartFrom(Model):
    """A checkpoint of an earlier phase, handed over."""

    phase: Name | None = None
    """Whose checkpoint; default the phase before this one."""
    checkpoint: Annotated[Text, AfterValidator(_check_wanted)] = "latest"
    """latest, best, final, or a checkpoint's name."""
    how: Literal["resume", "path"] = Field(default="resume", alias="as")
    """resume: the trainer goes on from it, as after a crash. path: `{start}` is where it lies."""


class Git(Model):
    """What the code folder's repository must have checked out at launch."""

    branch: Text | None = None
    """This branch."""
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$")] | None = None
    """This commit, or the first characters of it."""


class Phase(Model):
    """A named part of a run. Any other key of the job may stand here and overlays it."""

    model_config = ConfigDict(extra="allow")

    name: Name
    """The phase's name."""
    stop_after_steps: Whole | None = None
    """Stop the trainer after this many steps."""
    gate: Gate | None = None
    """What must hold before the next phase begins."""
    start_from: StartFrom | None = None
    """A checkpoint of an earlier phase to start from; without it the phase starts from scratch."""
    git: Git | None = None
    """The branch or commit that the code must be at."""
    hold_minutes: AmountOrZero = 10.0
    """How long the phase's box is kept while a person is waited for; it bills."""


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
    refuse: Text | None = None
    """Why this file must not be run: planning and launching it end with these words."""

    _base: Path = PrivateAttr(default=Path())
    _parts: tuple[tuple[Phase, Job], ...] = PrivateAttr(default=())

    @property
    def base(self) -> Path:
        """The folder of the job file; relative paths in it begin here. Not serialised."""
        return self._base

    @property
    def parts(self) -> tuple[tuple[Phase, Job], ...]:
        """Each phase with the whole job that it is; a job without phases is its only one."""
        return self._parts or ((Phase(name=ONLY_PHASE), self),)

    def at(self, base: Path, parts: tuple[tuple[Phase, Job], ...] = ()) -> Job:
        """This job with `base` as its folder, and with what its phases are."""
        copy = self.model_copy()
        copy._base = base
        copy._parts = tuple((phase, job.at(base)) for phase, job in parts)
        return copy

    def local(self, text: str) -> Path:
        """A local path of the job file (`~` is the home folder), as a path of this machine."""
        return self.base / Path(text).expanduser()
