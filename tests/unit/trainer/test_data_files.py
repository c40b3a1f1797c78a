"""Files of rows: which are meant, and what each row's number is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from data_kit import jsonl, parquet, unchecked

from remote.trainer.data import files
from remote.trainer.data.arrow import python_rows
from remote.trainer.data.files import FileError, RowError, blocks, columns, expand, rows
from remote.trainer.problems import TrainError

ROWS = [{"a": number} for number in range(5)]


def everything(path: Path) -> list[tuple[int, Any]]:
    return [pair for block in blocks(path) for pair in rows(block)]


def test_folders_globs_and_files_in_order_each_once(tmp_path: Path) -> None:
    deep = tmp_path / "set" / "deep"
    deep.mkdir(parents=True)
    for path in (deep / "b.parquet", tmp_path / "set" / "a.parquet"):
        parquet(path, ROWS)
    for name in ("set/c.jsonl", "set/.hidden.jsonl", "set/_own.jsonl", "x1.jsonl", "x2.jsonl"):
        jsonl(tmp_path / name, ROWS)
    (tmp_path / "set" / "readme.md").write_text("no data")
    patterns = [str(tmp_path / "x2.jsonl"), str(tmp_path / "set"), str(tmp_path / "x*.jsonl")]
    names = [str(path.relative_to(tmp_path)) for path in expand(patterns)]
    assert names == ["x2.jsonl", "set/a.parquet", "set/c.jsonl", "set/deep/b.parquet", "x1.jsonl"]


def test_a_name_with_a_glob_s_characters_is_a_name_first(tmp_path: Path) -> None:
    path, other = (jsonl(tmp_path / name, ROWS) for name in ("a[1].jsonl", "a1.jsonl"))
    assert expand([str(path)]) == [path]
    assert expand([str(tmp_path / "a[12].jsonl")]) == [other]


def test_names_that_name_nothing_are_all_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("a")
    patterns = [str(tmp_path / name) for name in ("none.jsonl", "empty", "a.csv", "*.parquet")]
    with pytest.raises(TrainError) as caught:
        expand(patterns, key="evaluate.data")
    assert [problem.replace(str(tmp_path), "") for problem in caught.value.problems] == [
        "evaluate.data: /none.jsonl: no such file",
        "evaluate.data: /empty: no .parquet or .jsonl file is in this folder",
        "evaluate.data: /a.csv: a.csv is neither .parquet nor .jsonl",
        "evaluate.data: /*.parquet: no such file",
    ]


def test_rows_keep_their_numbers_over_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_ROWS", 2)
    expected = list(enumerate(ROWS, start=1))
    assert everything(jsonl(tmp_path / "a.jsonl", ROWS)) == expected
    assert everything(parquet(tmp_path / "a.parquet", ROWS, row_group_size=3)) == expected


def test_blocks_of_large_rows_have_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 2**16)
    large = [{"a": f"{n}" * (20_000 if n < 20 else 10)} for n in range(100)]
    for path in (jsonl(tmp_path / "a.jsonl", large), parquet(tmp_path / "a.parquet", large)):
        found = list(blocks(path))
        assert max(len(block.payload) for block in found) < 2 * 2**16
        assert len(found) < 40
        assert [row for block in found for row in rows(block)] == list(enumerate(large, start=1))


def test_a_dictionary_is_not_repeated_for_a_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes with each part of a batch, however small."""
    monkeypatch.setattr(files, "BLOCK_BYTES", 2**16)
    texts = pa.array([f"{n % 10}" * 10_000 for n in range(100)]).dictionary_encode()
    pq.write_table(pa.table({"a": texts}), tmp_path / "a.parquet")
    (block,) = blocks(tmp_path / "a.parquet")
    assert [row["a"][0] for _, row in rows(block)] == [f"{n % 10}" for n in range(100)]


def test_a_line_is_a_number_and_an_empty_one_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 0}\n\n  \n{"a": 1}\nnot json\n{"a": "\xff"}')
    found = everything(path)
    assert found[:2] == [(1, {"a": 0}), (4, {"a": 1})]
    assert [(number, type(row)) for number, row in found[2:]] == [(5, RowError), (6, RowError)]
    assert "not JSON: Expecting value" in str(found[2][1])


def test_only_the_columns_asked_for(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [{"a": 1, "b": "x", "c": 2}])
    (block,) = blocks(path, only=("c", "a", "z"))
    assert list(rows(block)) == [(1, {"a": 1, "c": 2})]
    assert columns(path) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.parquet", b"", "cannot be read as parquet"),
        ("a.parquet", b"PAR1 this is none PAR1", "cannot be read as parquet"),
        ("a.jsonl", b"", "is empty"),
    ],
    ids=["nothing", "garbage", "empty"],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=problem):
        columns(tmp_path / name)


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    with pytest.raises(FileError, match="has no rows"):
        columns(tmp_path / "a.parquet")


def test_a_parquet_file_that_breaks_in_the_middle(tmp_path: Path) -> None:
    many = [{"a": f"{number} {'x' * 50}"} for number in range(20_000)]
    path = parquet(tmp_path / "a.parquet", many, row_group_size=5000, compression="snappy")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(content)
    assert columns(path) == ("a",)  # the footer is whole
    with pytest.raises(FileError, match=r"row \d+ and on: cannot be read"):
        everything(path)


def test_a_text_that_is_none_is_a_row_s_mistake(tmp_path: Path) -> None:
    """Arrow believes what a file says of its bytes, and finds out when they are read."""
    texts = unchecked(b"one", b"\xff\xfe", b"three", b"four")
    said = pa.StructArray.from_arrays([unchecked(b"a", b"b", b"c", b"\xc3")], ["content"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), said)
    table = pa.table({"n": [1, 2, 3, 4], "text": texts, "messages": lists})
    pq.write_table(table, tmp_path / "a.parquet")
    found = everything(tmp_path / "a.parquet")
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert found[0][1] == {"n": 1, "text": "one", "messages": [{"content": "a"}]}
    assert found[2][1] == {"n": 3, "text": "three", "messages": [{"content": "c"}]}
    problems = [str(row) for _, row in found if isinstance(row, RowError)]
    assert problems == [
        "`text` cannot be read: it holds a text that is not UTF-8",
        "`messages` cannot be read: it holds a text that is not UTF-8",
    ]


def test_a_date_that_is_none_is_a_row_s_mistake(tmp_path: Path) -> None:
    far = pa.array([0, 10**16], pa.int64()).cast(pa.timestamp("ms"))
    pq.write_table(pa.table({"at": far}), tmp_path / "a.parquet")
    (_, good), (number, bad) = everything(tmp_path / "a.parquet")
    assert good["at"].year == 1970
    assert number == 2
    assert str(bad).startswith("`at` cannot be read: ")


@pytest.mark.parametrize(
    "values",
    [
        [{"messages": [{"role": "user", "content": "hi", "n": 1}]}, {"messages": []}],
        [{"messages": None}, {"messages": [{"role": None, "content": "x", "n": None}]}],
        [{"s": {"t": ["a", None]}, "x": 1.5}, {"s": None, "x": None}],
    ],
    ids=["lists", "nulls", "nested"],
)
def test_arrow_rows_are_what_pyarrow_itself_makes_of_them(values: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(values * 3)
    for batch in table.slice(1, 4).to_batches():
        assert python_rows(batch) == batch.to_pylist()


def test_dictionaries_of_texts_are_texts() -> None:
    column = pa.array(["a", "b", "a", None]).dictionary_encode()
    (batch,) = pa.table({"t": column}).to_batches()
    assert [row["t"] for row in python_rows(batch)] == ["a", "b", "a", None]


def test_json_lines_of_any_depth_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000 + "\n" + json.dumps({"a": 1}) + "\n")
    (_, broken), (_, whole) = everything(path)
    assert isinstance(broken, RowError)
    assert whole == {"a": 1}
