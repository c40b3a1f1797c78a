"""The files that `train:` names, looked for among what is uploaded: a run that cannot begin is not
rented for."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.core.plan import Upload
from orchestrator.core.spec import Job
from orchestrator.core.spec.phase_checks import START
from orchestrator.core.spec.training import Train, refused_with
from orchestrator.errors import BadJobFile

MOST_CONFIG_BYTES = 2**20


def check_train_files(job: Job, uploads: Sequence[Upload]) -> None:
    """Raises BadJobFile naming each key whose file will not be on the box, and what the trainer
    refuses of the DeepSpeed file. Where `setup` or a volume may bring files, none is missed."""
    if job.train is None:
        return
    places = {
        posixpath.normpath(f"{upload.dest}/{entry.path}"): Path(upload.source) / entry.path
        for upload in uploads
        for entry in upload.tree.files
    }
    problems = [*_deepspeed_problems(job.train, places)]
    if job.setup is None and job.resources.volume is None:
        problems += _missing(job.train, places)
    if problems:
        raise BadJobFile(
            "\n".join([*problems, "nothing was rented"]),
            hint="what `train:` names has to be in the code folder (what .gitignore names is not"
            " uploaded) or brought by `data: [{from: …, to: …}]`; paths begin at the work folder",
        )


def _missing(train: Train, places: dict[str, Path]) -> Iterator[str]:
    there = {*places, *(str(each) for name in places for each in PurePosixPath(name).parents)}
    for key, name in _named(train):
        path = posixpath.normpath(name)
        if START in name or path.startswith(("/", "~", "..")):
            continue
        if path not in there and not any(fnmatchcase(each, path) for each in places):
            yield f"train.{key}: {name} is not among the files that are uploaded"


def _named(train: Train) -> Iterator[tuple[str, str]]:
    yield from (("data", name) for name in train.data)
    if train.evaluate is not None:
        yield from (("evaluate.data", name) for name in train.evaluate.data)
    if train.template is not None:
        yield "template", train.template
    if isinstance(train.deepspeed, str):
        yield "deepspeed", train.deepspeed
    if train.gad is not None and train.gad.warmup_from is not None:
        yield "gad.warmup_from", train.gad.warmup_from


def _deepspeed_problems(train: Train, places: dict[str, Path]) -> Iterator[str]:
    if not isinstance(train.deepspeed, str):
        return
    source = places.get(posixpath.normpath(train.deepspeed))
    if source is None:
        return
    config = _read(source)
    if not isinstance(config, dict):
        yield f"train.deepspeed: {train.deepspeed} does not hold a JSON object"
        return
    for problem in refused_with(train, config):
        yield f"{train.deepspeed}: {problem}"


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > MOST_CONFIG_BYTES:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
