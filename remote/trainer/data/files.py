"""Parquet and JSONL files, read a block of rows at a time: no file has to fit into memory.

A block is bytes, so that another process can take it; `rows` turns it into rows again.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from remote.trainer.data.arrow import python_rows
from remote.trainer.problems import TrainError

SUFFIXES = (".parquet", ".jsonl")
BLOCK_ROWS = 2048
BLOCK_BYTES = 8 * 2**20
LINE_BYTES = 64 * 2**20
# What reading a value raises: Arrow trusts a file that its bytes are UTF-8 and its dates dates.
_UNREADABLE = (pa.ArrowException, ValueError, OverflowError)


class FileError(ValueError):
    """A file, or one of its rows, cannot be read. The message names the row when there is one."""


class RowError(ValueError):
    """One row is not what it should be. The message does not name it."""


@dataclass(frozen=True)
class Block:
    """`count` rows of a file, one after the other, of which `first` is the first, from 1.

    `payload` is an Arrow stream of a parquet file's rows, or lines of a JSONL file; it may hold
    more rows than are counted.
    """

    path: Path
    first: int
    count: int
    payload: bytes


def expand(patterns: Iterable[str], *, key: str = "data") -> list[Path]:
    """The files that paths, folders and globs name, each once, in order.

    Raises TrainError for what names none, and for what is neither .parquet nor .jsonl.
    """
    files: list[Path] = []
    problems: list[str] = []
    for pattern in patterns:
        try:
            files.extend(_named(pattern))
        except FileError as error:
            problems.append(f"{key}: {pattern}: {error}")
    if problems:
        raise TrainError(problems)
    return list(dict.fromkeys(files))


def columns(path: Path) -> tuple[str, ...] | None:
    """A parquet file's columns; None for a JSONL file, whose rows may differ.

    Raises FileError when the file cannot be read at all, or has no rows.
    """
    if path.suffix == ".jsonl":
        if path.stat().st_size == 0:
            raise FileError("is empty")
        return None
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows == 0:
                raise FileError("has no rows")
            return tuple(file.schema_arrow.names)
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"cannot be read as parquet: {_first_line(error)}") from error


def blocks(path: Path, *, only: Sequence[str] | None = None) -> Iterator[Block]:
    """All rows of a file, of a parquet file the columns `only`. Raises FileError on the way."""
    reader = _lines if path.suffix == ".jsonl" else _batches
    yield from reader(path, only)


def rows(block: Block) -> Iterator[tuple[int, Any]]:
    """Each row of a block with its number; a RowError in its place when it cannot be read."""
    yield from islice(_numbered(block), block.count)


def _numbered(block: Block) -> Iterator[tuple[int, Any]]:
    if block.path.suffix == ".parquet":
        batches = pa.ipc.open_stream(block.payload)
        yield from enumerate((row for b in batches for row in _python_rows(b)), block.first)
        return
    for number, line in enumerate(block.payload.split(b"\n"), block.first):
        if line.strip():
            yield number, _parsed(line)


def _python_rows(batch: pa.RecordBatch) -> list[Any]:
    """A batch in which something cannot be read is looked at row by row."""
    try:
        return list(python_rows(batch))
    except _UNREADABLE as error:
        if batch.num_rows > 1:
            one_by_one = (batch.slice(at, 1) for at in range(batch.num_rows))
            return [row for one in one_by_one for row in _python_rows(one)]
        return [_unreadable(batch, error)]


def _unreadable(row: pa.RecordBatch, error: Exception) -> RowError:
    for name in row.schema.names:
        try:
            python_rows(row.select([name]))
        except (ValueError, OverflowError) as reason:
            return RowError(f"`{name}` cannot be read: {_first_line(reason)}")
        except pa.ArrowException:  # its words have the very bytes in them
            return RowError(f"`{name}` cannot be read: it holds a text that is not UTF-8")
    return RowError(f"cannot be read: {_first_line(error)}")


def _named(pattern: str) -> list[Path]:
    found = [Path(pattern)] if Path(pattern).exists() else _matching(pattern)
    if not found:
        raise FileError("no such file")
    files: list[Path] = []
    for path in found:
        inside = _inside(path) if path.is_dir() else [path]
        if path.is_dir() and not inside and len(found) == 1:
            raise FileError("no .parquet or .jsonl file is in this folder")
        files.extend(inside)
    for path in files:
        if path.suffix not in SUFFIXES:
            raise FileError(f"{path.name} is neither .parquet nor .jsonl")
    return files


def _matching(pattern: str) -> list[Path]:
    # Path.glob takes no absolute pattern.
    return sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207


def _inside(folder: Path) -> list[Path]:
    """A folder's data files, at any depth; what begins with a dot or _ is somebody's own."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    ]


def _batches(path: Path, only: Sequence[str] | None) -> Iterator[Block]:
    number = 1
    try:
        # Without pre_buffer a column is read as it is decoded, and no row group is held whole.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            known = file.schema_arrow.names
            wanted = None if only is None else [name for name in known if name in only]
            for batch in file.iter_batches(BLOCK_ROWS, columns=wanted, use_threads=False):
                for part in _parts(batch):
                    yield Block(path, number, part.num_rows, _stream(part))
                    number += part.num_rows
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"row {number} and on: cannot be read: {_first_line(error)}") from error


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch, halved until no part is larger than a block shall be."""
    middle = batch.num_rows // 2
    if middle == 0 or batch.nbytes <= BLOCK_BYTES:
        yield batch
        return
    halves = (batch.slice(0, middle), batch.slice(middle))
    if sum(half.nbytes for half in halves) > 1.5 * batch.nbytes:
        yield batch  # most of it is a dictionary, which would go with every part
        return
    for half in halves:
        yield from _parts(half)


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _lines(path: Path, only: Sequence[str] | None) -> Iterator[Block]:
    number, first, size = 1, 1, 0
    held: list[bytes] = []
    try:
        with path.open("rb") as file:
            while line := file.readline(LINE_BYTES + 1):
                if len(line) > LINE_BYTES:
                    raise FileError(f"row {number}: is longer than {LINE_BYTES // 2**20} MiB")
                held.append(line)
                number, size = number + 1, size + len(line)
                if len(held) == BLOCK_ROWS or size >= BLOCK_BYTES:
                    yield _block(path, first, held)
                    first, size, held = number, 0, []
    except OSError as error:
        raise FileError(f"row {number} and on: cannot be read: {error.strerror}") from error
    if held:
        yield _block(path, first, held)


def _block(path: Path, first: int, lines: list[bytes]) -> Block:
    return Block(path, first, sum(1 for line in lines if line.strip()), b"".join(lines))


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return RowError(f"not JSON: {error}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
