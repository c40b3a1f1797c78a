"""Prompts to be answered, with the reference answers where the data have any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote.trainer.data.files import FileError, RowError, blocks, columns, expand, rows
from remote.trainer.data.shapes import Message, messages, turns
from remote.trainer.problems import TrainError

MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Prompt:
    messages: tuple[Message, ...]
    reference: str | None
    source: str


def load(files: Sequence[str], *, most: int | None, key: str) -> list[Prompt]:
    """The first `most` prompts of the files. Raises TrainError with up to 20 problems."""
    found: list[Prompt] = []
    problems: list[str] = []
    for source, row in sources(files, key, problems):
        if len(problems) >= MAX_PROBLEMS or (most is not None and len(found) == most):
            break
        try:
            found.append(_prompt(row, source))
        except RowError as error:
            problems.append(f"{key}: {source}: {error}")
    if problems:
        raise TrainError(problems[:MAX_PROBLEMS])
    return found


def sources(files: Sequence[str], key: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Every row with its file and number. A file that cannot be read becomes a problem."""
    for path in expand(files, key=key):
        try:
            columns(path)
            for block in blocks(path):
                for number, row in rows(block):
                    yield f"{path}: row {number}", row
        except FileError as error:
            problems.append(f"{key}: {path}: {error}")


def _prompt(row: Any, source: str) -> Prompt:
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, Mapping):
        raise RowError("not a mapping of columns to values")
    for asked, answered in (("content", "teacher_response"), ("prompt", "completion")):
        if row.get(asked) is not None:
            said = row.get(answered)
            answer = turns(said, answered, "assistant")[-1]["content"] if said else None
            return Prompt(tuple(turns(row[asked], asked, "user")), answer, source)
    if row.get("messages") is None:
        raise RowError("has none of `messages`, `prompt` and `content`")
    return _conversation(messages(row["messages"], "messages"), source)


def _conversation(said: list[Message], source: str) -> Prompt:
    if said[-1]["role"] != "assistant":
        return Prompt(tuple(said), None, source)
    if len(said) == 1:
        raise RowError("`messages` holds no question")
    return Prompt(tuple(said[:-1]), said[-1]["content"], source)
