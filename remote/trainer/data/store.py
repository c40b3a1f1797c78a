"""Tokenised rows on disk: written once, in order, and memory-mapped by every rank.

`tokens.bin` holds all rows end to end, 4 bytes a token, of which the top bit says whether it is
learned; `starts.bin` where each row begins; `lengths.bin`, `counts.bin` and `numbers.bin` a number
a row (and part); `store.json` the rest. A folder is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
from bisect import bisect_right
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from remote.trainer.data.encode import LEARNED, Part
from remote.trainer.data.rows import Encoded, Report

VERSION = 1
DESCRIPTION = "store.json"
HELD_ROWS = 4096
_FILES: dict[str, Any] = {
    "tokens": np.uint32,
    "starts": np.int64,
    "lengths": np.int32,
    "counts": np.int32,
    "numbers": np.uint32,
}


class Writer:
    """Adds up what workers make, in the files' order. Raises OSError when the disk is full."""

    def __init__(self, folder: Path, *, parts: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder, self._parts = folder, parts
        self._out = {name: (folder / f"{name}.bin").open("wb") for name in _FILES}
        self._digests = [hashlib.sha256(), hashlib.sha256()]
        self._files: list[tuple[str, int]] = []
        self._read = self._used = self._truncated = self._tokens = self._learned = 0

    @property
    def read(self) -> int:
        return self._read

    def add(self, path: Path, part: Part) -> None:
        """Append a part; those of one file follow each other."""
        if not self._files or self._files[-1][0] != str(path):
            self._files.append((str(path), self._used))
        sizes = part.lengths.sum(axis=1, dtype=np.int64)
        starts = self._tokens + np.cumsum(sizes) - sizes
        for name, values in (
            *(("tokens", part.tokens), ("starts", starts), ("lengths", part.lengths)),
            *(("counts", part.counts), ("numbers", part.numbers)),
        ):
            self._out[name].write(np.ascontiguousarray(values, dtype=_FILES[name]).data)
        for digest, values in zip(self._digests, (part.tokens, part.lengths), strict=True):
            digest.update(np.ascontiguousarray(values).data)
        self._read += part.read
        self._used += len(part.numbers)
        self._truncated += part.truncated
        self._tokens += len(part.tokens)
        self._learned += int(part.counts.sum(dtype=np.int64))

    def close(self) -> None:
        """Write down what the folder holds."""
        for out in self._out.values():
            out.close()
        digest = hashlib.sha256(str(self._parts).encode())
        for each in self._digests:
            digest.update(each.digest())
        report = Report(
            rows=self._read,
            used=self._used,
            truncated=self._truncated,
            masked=self._read - self._used,
            tokens=self._tokens,
            learned=self._learned,
        )
        record = {
            "v": VERSION,
            "parts": self._parts,
            "fingerprint": digest.hexdigest(),
            "report": asdict(report),
            "files": self._files,
        }
        (self._folder / DESCRIPTION).write_text(json.dumps(record), encoding="utf-8")

    def abandon(self) -> None:
        for out in self._out.values():
            out.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Tokens:
    """Implements `Store` over a folder that a `Writer` made. Raises OSError and ValueError when
    it is not whole."""

    def __init__(self, folder: Path) -> None:
        record = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if record["v"] != VERSION:
            raise ValueError(f"{folder} was written in another version")
        self.parts = int(record["parts"])
        self.report = Report(**record["report"])
        self.fingerprint = str(record["fingerprint"])
        self._paths = [path for path, _ in record["files"]]
        self._firsts = [first for _, first in record["files"]]
        used, tokens = self.report.used, self.report.tokens
        self._map, self._tokens = _mapped_tokens(folder, tokens)
        self._touched = 0
        self._starts = _mapped(folder, "starts", (used,))
        self._numbers = _mapped(folder, "numbers", (used,))
        self.lengths = _mapped(folder, "lengths", (used, self.parts))
        self.counts = _mapped(folder, "counts", (used, self.parts))

    def __len__(self) -> int:
        return self.report.used

    def row(self, index: int) -> tuple[Encoded, ...]:
        self._let_go()
        at = int(self._starts[index])
        parts = []
        for length in self.lengths[index].tolist():
            raw = self._tokens[at : at + length]
            parts.append(Encoded((raw & ~LEARNED).view(np.int32), raw >= LEARNED))
            at += length
        return tuple(parts)

    def source(self, index: int) -> str:
        file = self._paths[bisect_right(self._firsts, index) - 1]
        return f"{file}: row {self._numbers[index]}"

    def _let_go(self) -> None:
        """Pages that were read stay in the system's cache and count no longer as this process's:
        at the end of an epoch it would hold the whole file."""
        self._touched += 1
        if self._touched % HELD_ROWS == 0 and self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)


def _mapped_tokens(folder: Path, count: int) -> tuple[mmap.mmap | None, npt.NDArray[np.uint32]]:
    path = folder / "tokens.bin"
    _check_whole(path, 4 * count)
    if count == 0:  # nothing cannot be mapped
        return None, np.zeros(0, dtype=np.uint32)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return mapped, np.frombuffer(mapped, dtype=np.uint32)


def _mapped(folder: Path, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    dtype = np.dtype(_FILES[name])
    path = folder / f"{name}.bin"
    _check_whole(path, int(np.prod(shape)) * dtype.itemsize)
    if 0 in shape:
        return np.zeros(shape, dtype=dtype)
    # As a plain array: slices of a memmap cost microseconds more, each.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=shape))


def _check_whole(path: Path, size_bytes: int) -> None:
    if path.stat().st_size != size_bytes:
        raise ValueError(f"{path} is not whole")
