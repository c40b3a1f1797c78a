"""Rows in place of those that only the box will have, because `setup` brings them there."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import PurePosixPath

from orchestrator.core.spec import Job
from orchestrator.flows.rehearsal.code import Code

ROWS = 64
MOST_FILES = 2000


def absent_data(job: Job, code: Code) -> tuple[str, ...]:
    """What `train:` reads and neither the code nor `data` bring; without a `setup` or a volume the
    plan refuses it anyway."""
    if job.train is None or (job.setup is None and job.resources.volume is None):
        return ()
    names = [*job.train.data, *(job.train.evaluate.data if job.train.evaluate else ())]
    there = {*code.files, *_brought(job)}
    return tuple(dict.fromkeys(name for name in names if not _is_there(name, there)))


def made_up_rows() -> str:
    """JSONL that every method can read: nothing is learned of it but that a trainer runs."""
    return "".join(json.dumps(_row(number)) + "\n" for number in range(ROWS))


def _row(number: int) -> dict[str, str]:
    asked, said = f"Say {number}.", f"{number} it is."
    return {
        "prompt": asked,
        "completion": said,
        "chosen": said,
        "rejected": "I will not.",
        "content": asked,
        "teacher_response": said,
    }


def _brought(job: Job) -> Iterator[str]:
    for item in job.data:
        source = job.local(item.source)
        if source.is_dir():
            for path in islice(source.rglob("*"), MOST_FILES):
                yield posixpath.normpath(f"{item.to}/{path.relative_to(source).as_posix()}")
        else:
            yield posixpath.normpath(item.to)
            yield posixpath.normpath(f"{item.to}/{source.name}")


def _is_there(name: str, there: set[str]) -> bool:
    path = posixpath.normpath(name)
    folders = {str(each) for known in there for each in PurePosixPath(known).parents}
    return path in there | folders or any(fnmatchcase(known, path) for known in there)
