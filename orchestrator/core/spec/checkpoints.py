"""`checkpoints`: where the trainer writes them, how they look, where they go, how to resume."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, Tag

from orchestrator.core.spec.model import WORD_OR_MAPPING, Model, Text, Variable, Whole, WorkPath

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
    """The metric's name, such as eval_loss."""
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
    also: Annotated[str, Field(pattern=r"^s3://[^/]+")] | None = None
    """A second home, s3://bucket/prefix, pushed by the box."""
    keep: Keep | None = None
    """Which checkpoints stay."""
