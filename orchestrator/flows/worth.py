"""What a checkpoint is worth, read from the folder where it was published."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.metrics import Metric, metrics_in_lines, metrics_of, steps_that_told
from orchestrator.core.run import Run, Seal
from orchestrator.ports import TaskContext

MOST_STATE_BYTES = 32 * 1024**2
MOST_LINES_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class Fetched:
    """Where a checkpoint is published, and the numbers of its step by name."""

    path: str
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Weighed:
    """A published checkpoint, and the numbers of its step that nobody knew of."""

    seal: Seal
    metrics: Mapping[str, float] = field(default_factory=dict)


def weighed(
    context: TaskContext, fetch: Callable[..., str], seal: Seal, folder: Path, *arguments: Any
) -> Fetched:
    """Fetch a checkpoint, and read what its trainer wrote down at its step: into the box's
    `metrics.jsonl`, below the run's `folder`, and into the checkpoint itself."""
    path = fetch(context, *arguments)
    return Fetched(path, worth(seal, folder, Path(path)))


def worth(seal: Seal, folder: Path, path: Path) -> dict[str, float]:
    """What is known by now of a checkpoint that is published at `path`."""
    if seal.step is None:
        return {}
    metrics = metrics_in_lines(_last_lines(folder / seal.instance / "metrics.jsonl"), seal.step)
    return metrics | metrics_of(_parsed(state_bytes(path / "trainer_state.json")), seal.step)


def measured_late(run: Run, metric: Metric, folder: Path) -> Iterator[Weighed]:
    """Published checkpoints whose trainer told their metric after they had come."""
    unknown: dict[str, dict[int, Seal]] = {}
    for seal in run.seals:
        is_known = metric.name in run.metrics.get(seal.digest, {})
        if seal.digest in run.mirrored and seal.step is not None and not is_known:
            unknown.setdefault(seal.instance, {})[seal.step] = seal
    for instance, seals in unknown.items():
        lines = _last_lines(folder / instance / "metrics.jsonl")
        for step, metrics in steps_that_told(lines, metric.name, seals).items():
            yield Weighed(seals[step], metrics)


def state_bytes(path: Path) -> bytes | None:
    """The box wrote it: a file of any size, that may be anything. None for what cannot be read, or
    is too much."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MOST_STATE_BYTES + 1)
        return data if len(data) <= MOST_STATE_BYTES else None
    except OSError:
        return None


def _parsed(data: bytes | None) -> Any:
    try:
        return None if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None


def _last_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MOST_LINES_BYTES))
            data = file.read(MOST_LINES_BYTES)
    except OSError:
        return
    yield from data.split(b"\n")
