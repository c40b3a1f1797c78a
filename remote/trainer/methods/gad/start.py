"""Where GAD begins: the untouched model, a warm-up, or a checkpoint of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.trainer import resume
from remote.trainer.methods.gad.critic import FILE
from remote.trainer.methods.gad.roles import REFERENCE
from remote.trainer.problems import TrainError
from remote.trainer.ranks import barrier, rank, together
from remote.trainer.resume import Origin
from remote.trainer.settings import Settings

KEY = "gad.warmup_from"
_REFERENCE = (
    *(
        "config.json",
        "generation_config.json",
        "model*.safetensors",
        "model.safetensors.index.json",
    ),
    *("adapter_config.json", "adapter_model.safetensors"),
)


@dataclass(frozen=True)
class Start:
    """`policy`: the folder of its first weights, `critic`: the file of the discriminator's; None
    is the model's own. `reference`: the folder of the frozen policy; None where none is needed.
    `key` is what errors name."""

    policy: Path | None
    critic: Path | None
    reference: Path | None
    key: str


def find(settings: Settings, origin: Origin | None, output: Path) -> Start:
    """Settle it, with the reference at its place below `output`. Raises TrainError."""
    source = together(lambda: _source(settings, origin))
    reference = None
    if settings.gad.refers:
        assert source is not None
        frozen = source / REFERENCE if origin is not None else source
        together(lambda: _keep(frozen, output / REFERENCE) if rank() == 0 else None)
        barrier()
        reference = output / REFERENCE
    if origin is not None and settings.deepspeed is not None:
        source = None  # DeepSpeed brings its weights back itself, from its shards
    return Start(
        policy=source,
        critic=source / FILE if source is not None else None,
        reference=reference,
        key="resume" if origin is not None else KEY,
    )


def place_reference(output: Path, folder: Path) -> None:
    """Put the reference into a checkpoint: a resume elsewhere finds no warm-up. A link where that
    works, so that it costs no disk, and the mirror sends it once."""
    source = output / REFERENCE
    (folder / REFERENCE).mkdir()
    for path in sorted(source.iterdir()):
        target = folder / REFERENCE / path.name
        try:
            os.link(path, target)
        except OSError:
            shutil.copy2(path, target)


def _source(settings: Settings, origin: Origin | None) -> Path | None:
    if origin is not None:
        _check_reference(settings, origin.folder)
        return origin.folder
    folder = settings.gad.warmup_from
    if folder is None:
        return None
    _check_warmup(settings, folder)
    return folder


def _check_reference(settings: Settings, folder: Path) -> None:
    if settings.gad.refers and not list((folder / REFERENCE).glob("*.safetensors")):
        raise TrainError(
            [
                f"resume: {folder / REFERENCE} is missing. GAD's reference is the warm-up's policy,"
                " which a checkpoint's has long left: resume from a checkpoint that has it"
            ]
        )


def _check_warmup(settings: Settings, folder: Path) -> None:
    try:
        about = resume.read(folder).about
    except TrainError as error:
        said = error.problems[0].removeprefix("resume: ")
        raise TrainError([f"{KEY}: {said}"]) from error
    ours = resume.identity(settings, data="", seed=0)
    wanted: Mapping[str, Any] = {
        **{key: ours[key] for key in ("method", "model", "trains")},
        "stage": "warmup",
    }
    problems = [
        f"{KEY}: {folder} has {key} {about.get(key)!r}, and {value!r} is needed"
        for key, value in wanted.items()
        if about.get(key) != value
    ]
    if not problems and not (folder / FILE).is_file():
        problems = [f"{KEY}: {folder} holds no {FILE}; it is not whole"]
    if problems:
        raise TrainError(problems)


def _keep(source: Path, target: Path) -> None:
    """A copy of what is frozen: its source may be written again by its own run."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for pattern in _REFERENCE:
        for path in sorted(source.glob(pattern)):
            shutil.copyfile(path, target / path.name)
