"""`{gpus}`, `{resume}` and the few other words that a job file's text may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAMES = (
    "gpus",
    "nodes",
    "resume",
    "checkpoint",
    "start",
    "run_id",
    "phase",
    "checkpoints.path",
)
# `${gpus}` is the shell's; `{"gpus"}`, `{print $1}` and any other brace are the user's own.
_PLACEHOLDER = re.compile(r"(?<!\$)\{(" + "|".join(map(re.escape, NAMES)) + r")\}")


def placeholders(
    *,
    gpus: int,
    nodes: int,
    run_id: str,
    phase: str,
    checkpoints_path: str,
    checkpoint: str | None,
    resume_args: str,
    start: str = "",
) -> dict[str, str]:
    """The value of every placeholder; `checkpoint` None means nothing to resume, and then
    `{checkpoint}` and `{resume}` are empty. `start` is where an earlier phase's checkpoint lies."""
    values = {
        "gpus": str(gpus),
        "nodes": str(nodes),
        "run_id": run_id,
        "phase": phase,
        "checkpoints.path": checkpoints_path,
        "checkpoint": checkpoint or "",
        "start": start,
        "resume": "",
    }
    if checkpoint is not None:
        values["resume"] = fill(resume_args, values)
    return values


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each placeholder that `values` knows replaced, once: what a value brings
    in is not searched again. Other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def fill_all(value: Any, values: Mapping[str, str]) -> Any:
    """`fill` for every text within lists and mappings; keys and other values stay."""
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, Mapping):
        return {key: fill_all(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(fill_all(item, values) for item in value)
    return value
