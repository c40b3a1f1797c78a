"""A manifest's digest: what it vouches for, byte by byte of the format."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest

from remote.contract import CHUNK_BYTES, ContractError, FileEntry, Manifest, hash_stream

EMPTY = hashlib.sha256().hexdigest()
A, B, C = "a" * 64, "b" * 64, "c" * 64
TWO = FileEntry("z", CHUNK_BYTES + 1, A, (B, C))
ONE = FileEntry("sub/one", 3, B, (B,))
NONE = FileEntry("empty", 0, EMPTY, ())


def test_the_digest_is_over_sorted_lines_with_the_chunks() -> None:
    lines = f"empty\t0\t{EMPTY}\t\nsub/one\t3\t{B}\t{B}\nz\t{CHUNK_BYTES + 1}\t{A}\t{B} {C}\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert Manifest((TWO, ONE, NONE)).digest == expected
    assert Manifest((NONE, TWO, ONE)).digest == expected


@pytest.mark.parametrize(
    "other",
    [
        FileEntry("z", CHUNK_BYTES + 1, A, (C, B)),
        FileEntry("z", CHUNK_BYTES + 1, C, (B, C)),
        FileEntry("z", CHUNK_BYTES + 2, A, (B, C)),
        FileEntry("y", CHUNK_BYTES + 1, A, (B, C)),
    ],
    ids=["chunks", "whole", "size", "path"],
)
def test_another_tree_has_another_digest(other: FileEntry) -> None:
    assert Manifest((other,)).digest != Manifest((TWO,)).digest


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_what_is_hashed_reads_back(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    entry = hash_stream(io.BytesIO(data[:size]), "x")
    starts = range(0, size, CHUNK_BYTES)
    chunks = tuple(
        hashlib.sha256(data[at : min(at + CHUNK_BYTES, size)]).hexdigest() for at in starts
    )
    assert entry == FileEntry("x", size, hashlib.sha256(data[:size]).hexdigest(), chunks)
    assert Manifest.decode(Manifest((entry,)).encode()).files == (entry,)


@pytest.mark.parametrize(
    "changes",
    [{"sha256": A}, {"chunks": [A]}, {"chunks": []}, {"chunks": [B, B]}, {"size": 0}],
    ids=["whole", "chunk", "none", "too many", "empty"],
)
def test_a_file_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="sub/one"):
        FileEntry.from_json({**ONE.to_json(), **changes})


def test_a_digest_without_the_chunks_is_refused() -> None:
    record = Manifest((TWO,)).to_json()
    line = f"z\t{CHUNK_BYTES + 1}\t{A}\n"
    record["digest"] = hashlib.sha256(line.encode()).hexdigest()
    with pytest.raises(ContractError, match="digest"):
        Manifest.decode(json.dumps(record).encode())
