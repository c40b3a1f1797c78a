"""Chat examples from parquet and JSONL files, each row checked before a GPU is kept waiting."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable

from remote.trainer.problems import TrainError

ROLES = ("system", "user", "assistant")
MAX_PROBLEMS = 20
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


class RowError(ValueError):
    """One row is not a chat example."""


def load(patterns: Sequence[str], *, limit: int | None = None) -> Dataset:
    """Read every file into one in-memory data set with a `messages` column, in order.

    In memory, because the data sets' library otherwise caches below the home folder.
    Raises TrainError naming file and row of up to 20 problems.
    """
    problems: list[str] = []
    examples: list[list[dict[str, str]]] = []
    for path in expand(patterns):
        _read(path, examples, problems)
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise TrainError(problems[:MAX_PROBLEMS])
    if not examples:
        raise TrainError([f"data: {', '.join(patterns)}: no examples"])
    table = pa.table({"messages": pa.array(examples[:limit], type=_MESSAGES)})
    return Dataset(InMemoryTable(table))


def expand(patterns: Iterable[str]) -> list[Path]:
    """The files that paths and globs name, in order. Raises TrainError for what names none."""
    files: list[Path] = []
    problems: list[str] = []
    for pattern in patterns:
        # Path.glob takes no absolute pattern.
        names = glob.glob(pattern, recursive=True)  # noqa: PTH207
        found = [path for path in sorted(map(Path, names)) if path.is_file()]
        if not found:
            problems.append(f"data: {pattern}: no such file")
        odd = [path for path in found if path.suffix not in _READERS]
        problems.extend(f"data: {path}: neither .parquet nor .jsonl" for path in odd)
        files.extend(found)
    if problems:
        raise TrainError(problems)
    return files


def check(row: Any) -> list[dict[str, str]]:
    """Return the row's messages as role and content. Raises RowError with what is wrong."""
    if not isinstance(row, dict) or "messages" not in row:
        raise RowError("no `messages`")
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise RowError("`messages` is not a list with something in it")
    chat = [_message(message, index) for index, message in enumerate(messages, start=1)]
    if not any(m["role"] == "assistant" and m["content"].strip() for m in chat):
        raise RowError("no assistant message with text: nothing to learn from")
    return chat


def _message(message: Any, index: int) -> dict[str, str]:
    if not isinstance(message, dict):
        raise RowError(f"message {index} is not a mapping")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RowError(f"message {index}: role must be one of {', '.join(ROLES)}, not {role!r}")
    if not isinstance(content, str):
        raise RowError(f"message {index}: content is not a text")
    for key, value in message.items():
        if key not in ("role", "content") and value is not None:
            raise RowError(f"message {index}: {key} is not supported yet")
    return {"role": role, "content": content}


def _read(path: Path, examples: list[list[dict[str, str]]], problems: list[str]) -> None:
    try:
        for number, row in _READERS[path.suffix](path):
            try:
                examples.append(check(row))
            except RowError as error:
                problems.append(f"data: {path}: row {number}: {error}")
                if len(problems) >= MAX_PROBLEMS:
                    return
    except (OSError, ValueError, pa.ArrowException) as error:
        problems.append(f"data: {path}: {error}")


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    with pq.ParquetFile(path) as file:
        if "messages" not in file.schema_arrow.names:
            raise ValueError(f"no `messages` column, only {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(columns=["messages"]):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise ValueError(f"row {number}: not JSON: {error}") from error


_READERS = {".parquet": _parquet_rows, ".jsonl": _jsonl_rows}
