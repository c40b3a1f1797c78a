"""The columns of the user's data, and those that settings and trainer ask for."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.core.rehearsal import edits
from orchestrator.core.rehearsal.report import Mistake
from orchestrator.core.spec import Job
from orchestrator.flows.rehearsal.code import MOST_SOURCE_BYTES, Code

_COLUMN = re.compile(r"(?:^|_)(?:column|columns|field)$|^(?:column|field)_(?:name)?")


def unknown_columns(job: Job, code: Code) -> Iterator[Mistake]:
    """Settings that name a column, against the columns of the JSONL files that travel."""
    have = {item.source: _columns_of(job.local(item.source)) for item in job.data}
    known = {name for columns in have.values() for name in columns}
    if not known:
        return
    for file, tree in code.settings.items():
        for keys, value in edits.leaves(tree):
            if keys and _COLUMN.search(keys[-1]) and isinstance(value, str) and value not in known:
                yield _no_column(value, f"{file} ({'.'.join(keys)})", have)


def missing_column(column: str, job: Job) -> Mistake:
    """A column that the trainer asked for while it ran."""
    have = {item.source: _columns_of(job.local(item.source)) for item in job.data}
    place = next((at for at, columns in enumerate(have.values()) if columns), 0)
    return _no_column(column, f"data[{place}].from", have)


def _no_column(column: str, where: str, have: Mapping[str, tuple[str, ...]]) -> Mistake:
    source, columns = next((each for each in have.items() if each[1]), ("the data", ()))
    close = difflib.get_close_matches(column, columns, n=1)
    advice = f"write {close[0]}, " if close else ""
    return Mistake(
        where,
        f"the data have no column `{column}`; {source} has {', '.join(columns[:12])}",
        f"{advice}or give data[].from files that have it",
        column,
    )


def _columns_of(path: Path) -> tuple[str, ...]:
    """Of the first row of a JSONL file, or of the first one in a folder."""
    if path.is_dir():
        path = next(iter(sorted(path.rglob("*.jsonl"))), path)
    if path.suffix != ".jsonl" or not path.is_file():
        return ()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            row = json.loads(file.readline(MOST_SOURCE_BYTES))
    except (OSError, ValueError):
        return ()
    return tuple(row) if isinstance(row, dict) else ()
