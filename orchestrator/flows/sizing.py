"""What the checkpoints of a job will take on the box's disk and here: a forecast for its plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.core.forecast import (
    GB,
    Forecast,
    Size,
    forecast,
    lora_parameters,
    parameters_of,
    sizes,
)
from orchestrator.core.keep import Keep
from orchestrator.core.spec import Job
from orchestrator.core.spec.training import Train
from orchestrator.errors import BadJobFile

MOST_CONFIG_BYTES = 2**20


def forecast_of(job: Job, keep: Keep | None, travels_bytes: int) -> Forecast | None:
    """None when nothing says how large a checkpoint is. `travels_bytes` go to the box's disk."""
    train = job.train
    args = dict(train.args) if train else {}
    said_gb = job.checkpoints.size_gb
    if said_gb is not None:
        size = Size(round(said_gb * GB), round(said_gb * GB))
        basis = "checkpoints.size_gb"
        return forecast(size, Size(0, size.high), basis, args, keep, base_bytes=travels_bytes)
    config = _config(job, train.model) if train else None
    parameters = parameters_of(config)
    if train is None or parameters is None:
        return None
    trained = _trained(train, config, parameters)
    if trained is None:
        return None
    checkpoint, final = sizes(
        parameters, trained, lora=train.adapters is not None, zero=train.deepspeed is not None
    )
    if train.method == "gad":  # the discriminator is as large and learns as much
        checkpoint, final = checkpoint.times(2), final.times(2)
    basis = f"{parameters / 1e9:.3g} billion parameters, {trained / 1e9:.3g} trained"
    return forecast(checkpoint, final, basis, args, keep, base_bytes=travels_bytes)


def check_fit(found: Forecast, disk_gb: int, mirror: Path, free_bytes: int | None) -> None:
    """Raises BadJobFile, with the key to change, when even the least that is needed is too much."""
    if found.box.low > disk_gb * GB:
        needed_gb = -(-found.box.high // GB)
        raise BadJobFile(
            f"the checkpoints need at least {found.box.low / GB:.1f} GB of the box's disk at once"
            f" ({found.basis}), and resources.disk_gb is {disk_gb}; nothing was rented",
            hint=f"set resources.disk_gb: {needed_gb}, or let the trainer keep fewer at once "
            "(save_total_limit); checkpoints.size_gb corrects the size of one",
        )
    if free_bytes is not None and found.mirror.low > free_bytes:
        raise BadJobFile(
            f"the checkpoints need at least {found.mirror.low / GB:.1f} GB in {mirror}"
            f" ({found.basis}), and {free_bytes / GB:.1f} GB can be used there; nothing was rented",
            hint="set checkpoints.keep, or checkpoints.mirror to a larger disk; "
            "checkpoints.size_gb corrects the size of one",
        )


def _trained(train: Train, config: Any, parameters: int) -> int | None:
    adapters = train.adapters
    if adapters is None:
        return parameters
    return lora_parameters(config, adapters.rank, adapters.target_modules)


def _config(job: Job, model: str) -> Any:
    """The model's own config.json, where it is a folder that is here."""
    for root in (job.local(job.code.path), job.base):
        path = root / model / "config.json"
        try:
            if path.stat().st_size <= MOST_CONFIG_BYTES:
                return json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):
            continue
    return None
