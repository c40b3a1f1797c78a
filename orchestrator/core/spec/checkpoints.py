"""`checkpoints`: where the trainer writes them, how they look, where they go, how to resume."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, Tag, model_validator

from orchestrator.core.spec.model import (
    WORD_OR_MAPPING,
    Amount,
    AmountOrZero,
    Model,
    Text,
    Variable,
    Whole,
    WorkPath,
)

LayoutName = Literal[
    "auto",
    "huggingface",
    "deepspeed",
    "open-instruct",
    "accelerate",
    "verl",
    "dcp",
    "lightning",
    "torchllms",
    "torchtune",
    "nanochat",
]
Patch = dict[str, dict[str, JsonValue]]


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return text


def _check_step_pattern(text: str) -> str:
    if re.compile(_check_pattern(text)).groups < 1:
        raise ValueError(r"needs a group around the step's digits, such as ^step_(\d+)$")
    return text


class LayoutRule(Model):
    """A checkpoint layout of your own."""

    glob: WorkPath
    """Checkpoints below `path`, such as step_*."""
    step: Annotated[str, AfterValidator(_check_step_pattern)]
    """Regular expression over the name; its first group is the step."""
    required: tuple[WorkPath, ...] = ()
    """Files (globs allowed) that a complete checkpoint has."""
    markers: tuple[WorkPath, ...] = ()
    """Files that the trainer writes last."""
    rank: Annotated[str, AfterValidator(_check_step_pattern)] | None = None
    """Regular expression over file names; its first group is the rank, one file a rank."""


class Resume(Model):
    """How the trainer is told to resume. With nothing to resume, all of it is empty."""

    args: str = ""
    """What `{resume}` in `run` becomes, such as --resume_from_checkpoint {checkpoint}."""
    env: dict[Variable, str] = Field(default={})
    """Variables set only when resuming; values may hold placeholders."""
    patch: Patch = Field(default={})
    """Keys set in files of yours only when resuming; values may hold placeholders."""
    place: WorkPath | None = None
    """Where an uploaded checkpoint is put; default {checkpoints.path}/ and its name."""


class Best(Model):
    """Keep the best checkpoints by a metric."""

    metric: Text
    """The metric's name, as the trainer writes it to trainer_state.json, such as eval_loss."""
    mode: Literal["min", "max"] | None = None
    """Whether the lowest or the highest is best; default min for a loss, an error, a perplexity
    and their like (by the words of the name), max for everything else."""
    count: Whole = 1
    """How many."""


class Keep(Model):
    """Which checkpoints stay in the mirror; without it all do."""

    last: Whole | None = None
    """The newest so many."""
    best: Best | None = None
    """The best by a metric."""
    every: Whole | None = None
    """Those at a multiple of this many steps."""

    @model_validator(mode="after")
    def _keeps_something(self) -> Keep:
        if self.last is None and self.best is None and self.every is None:
            raise ValueError("must say what stays: last, best or every; without `keep` all do")
        return self


def _check_time(text: str) -> str:
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError('a time of day is written "22:00"')
    return text


TimeOfDay = Annotated[
    str,
    AfterValidator(_check_time),
    Field(json_schema_extra={"pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"}),
]


class TransferWindow(Model):
    """Hours of each day, by the clock of the machine that gpujob runs on."""

    begin: TimeOfDay = Field(alias="from")
    """When it begins, such as "22:00"."""
    end: TimeOfDay = Field(alias="to")
    """When it ends; past midnight when that is before it begins."""
    mb_per_s: AmountOrZero | None = None
    """The cap in these hours; 0 pauses. Default the general one."""

    @model_validator(mode="after")
    def _lasts(self) -> TransferWindow:
        if self.begin == self.end:
            raise ValueError("ends when it begins; without windows the cap holds all day")
        return self


class Transfer(Model):
    """How fast bytes may travel, all connections of the run together, up and down."""

    mb_per_s: AmountOrZero | None = None
    """The cap in MB (10^6 bytes) a second; 0 pauses. Default none."""
    windows: tuple[TransferWindow, ...] = ()
    """Hours with another cap; the first that fits counts."""

    @model_validator(mode="after")
    def _lets_something_through(self) -> Transfer:
        caps = [self.mb_per_s, *(each.mb_per_s for each in self.windows if each.mb_per_s != 0)]
        if self.mb_per_s is None and not self.windows:
            raise ValueError("must say how fast: mb_per_s or windows; without `transfer` no cap")
        if self.mb_per_s == 0 and not any(caps):
            raise ValueError("lets nothing through at any hour, so no run could begin or end")
        return self


class Checkpoints(Model):
    """Where checkpoints are written, how they look, where they go."""

    path: WorkPath
    """The folder the trainer writes them to, relative to the work folder."""
    layout: Annotated[
        Annotated[LayoutName, Tag("word")] | Annotated[LayoutRule, Tag("mapping")],
        WORD_OR_MAPPING,
    ] = "auto"
    """How they look on disk: a name, or a mapping that describes your own."""
    resume: Resume = Resume()
    """How the trainer is told to resume."""
    mirror: Text | None = None
    """Folder here, relative to this file; default checkpoints/{name}/{run_id}/{phase}."""
    also: (
        Annotated[
            str,
            Field(
                pattern=r"^s3://[A-Za-z0-9][A-Za-z0-9._-]{1,62}(/[A-Za-z0-9_][A-Za-z0-9_=+@.-]*)*/?$"
            ),
        ]
        | None
    ) = None
    """A second home, s3://bucket/prefix, pushed by the box."""
    keep: Keep | None = None
    """Which checkpoints stay."""
    transfer: Transfer | None = None
    """How fast checkpoints, code and data may travel between here and the box."""
    size_gb: Amount | None = None
    """How large one checkpoint is, for a forecast of the disks; default an estimate from the
    model's config.json."""
