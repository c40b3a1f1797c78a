"""What a checkpoint is worth, read from the folder where it was published."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.metrics import metrics_in_lines, metrics_of
from orchestrator.core.run import Seal
from orchestrator.ports import TaskContext

MOST_STATE_BYTES = 32 * 1024**2
MOST_LINES_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class Fetched:
    """Where a checkpoint is published, and the numbers of its step by name."""

    path: str
    metrics: dict[str, float] = field(default_factory=dict)


def weighed(
    context: TaskContext, fetch: Callable[..., str], seal: Seal, folder: Path, *arguments: Any
) -> Fetched:
    """Fetch a checkpoint, and read what its trainer wrote down at its step: into the box's
    `metrics.jsonl`, below the run's `folder`, and into the checkpoint itself."""
    path = fetch(context, *arguments)
    if seal.step is None:
        return Fetched(path)
    metrics = metrics_in_lines(_last_lines(folder / seal.instance / "metrics.jsonl"), seal.step)
    metrics |= metrics_of(_state(Path(path) / "trainer_state.json"), seal.step)
    return Fetched(path, metrics)


def _state(path: Path) -> Any:
    """The box wrote it: a file of any size, that may be anything."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MOST_STATE_BYTES + 1)
        return json.loads(data) if len(data) <= MOST_STATE_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def _last_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MOST_LINES_BYTES))
            data = file.read(MOST_LINES_BYTES)
    except OSError:
        return
    yield from data.split(b"\n")
