"""Chat examples from files: what is read, and that file and row of a mistake are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")
import pyarrow as pa
import pyarrow.parquet as pq

from remote.trainer.data import MAX_PROBLEMS, expand, load
from remote.trainer.problems import TrainError

USER = {"role": "user", "content": "What is two and two?"}
ANSWER = {"role": "assistant", "content": "Four."}
GOOD = {"messages": [USER, ANSWER]}


def _jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_reads_both_formats_alike(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"chat.{suffix}"
    rows = [GOOD, {"messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER]}]
    if suffix == "jsonl":
        _jsonl(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    read = load([str(path)])
    assert [row["messages"] for row in read] == [row["messages"] for row in rows]
    assert read.cache_files == []


def test_files_come_in_the_order_named_and_globs_sorted(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        _jsonl(tmp_path / f"{name}.jsonl", [GOOD])
    found = expand([str(tmp_path / "c.jsonl"), str(tmp_path / "[ab].jsonl")])
    assert [path.name for path in found] == ["c.jsonl", "a.jsonl", "b.jsonl"]


def test_limit_takes_the_first(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "chat.jsonl", [GOOD] * 5)
    assert len(load([str(path)], limit=2)) == 2


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "x"}, "no `messages`"),
        ([], "no `messages`"),
        ({"messages": []}, "not a list with something in it"),
        ({"messages": "hello"}, "not a list with something in it"),
        ({"messages": ["hello"]}, "message 1 is not a mapping"),
        ({"messages": [{**USER, "role": "robot"}]}, "message 1: role must be one of"),
        ({"messages": [USER, {"role": "assistant"}]}, "message 2: content is not a text"),
        ({"messages": [USER]}, "no assistant message"),
        ({"messages": [USER, {**ANSWER, "content": " "}]}, "no assistant message"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [1]}]}, "tool_calls is not supported yet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_file_and_row(tmp_path: Path, row: Any, problem: str) -> None:
    path = _jsonl(tmp_path / "chat.jsonl", [GOOD, row, GOOD])
    with pytest.raises(TrainError) as caught:
        load([str(path)])
    (said,) = caught.value.problems
    assert said.startswith(f"data: {path}: row 2: ")
    assert problem in said


def test_names_several_rows_but_not_a_thousand(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "chat.jsonl", [{"messages": []}] * 1000)
    with pytest.raises(TrainError) as caught:
        load([str(path)])
    assert len(caught.value.problems) == MAX_PROBLEMS


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("absent.jsonl", None, "no such file"),
        ("chat.csv", b"a,b", "neither .parquet nor .jsonl"),
        ("chat.parquet", b"not parquet", "chat.parquet"),
        ("chat.jsonl", b'{"messages": [', "row 1: not JSON"),
        ("chat.jsonl", b"\n\n", "no examples"),
    ],
    ids=["absent", "csv", "broken-parquet", "broken-json", "empty"],
)
def test_names_the_file(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainError, match=problem):
        load([str(path)])


def test_parquet_without_the_column(tmp_path: Path) -> None:
    path = tmp_path / "chat.parquet"
    pq.write_table(pa.table({"prompt": ["x"]}), path)
    with pytest.raises(TrainError, match="no `messages` column, only prompt"):
        load([str(path)])
