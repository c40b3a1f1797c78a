"""The journal of a transfer: which chunks were verified, and which bytes came besides.

It lies beside the folder that it tells of, so that the folder holds the tree alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.adapters.durable import write_whole

Chunk = tuple[str, int]
Span = tuple[str, int, int]


class Journal:
    """Lines `["path", chunk]` of verified chunks under a first line that names the manifest,
    `["path", offset, length]` of bytes that came and are not verified yet, and `"complete"` once
    all chunks and their files are durable. A torn line counts for nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder.with_name(folder.name + ".journal")

    def chunks(self, digest: str) -> list[Chunk]:
        """What was verified of this manifest's tree; empty for another's journal."""
        return [(str(line[0]), line[1]) for line in self._of(digest) if _numbers(line) == 1]

    def spans(self, digest: str) -> list[Span]:
        """What came besides: a hint, which a digest has to prove."""
        found = [line for line in self._of(digest) if _numbers(line) == 2]
        return [(str(path), offset, length) for path, offset, length in found]

    def is_complete(self, digest: str) -> bool:
        lines = self._of(digest)
        return bool(lines) and lines[-1] == "complete" and all(map(_numbers, lines[:-1]))

    def begin(self, digest: str, verified: Iterable[Chunk], spans: Iterable[Span] = ()) -> None:
        """Start again with what is known to be good."""
        lines = [{"v": 1, "digest": digest}, *map(list, verified), *map(list, spans)]
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def add(self, chunk: Chunk) -> None:
        self._append(list(chunk))

    def add_span(self, span: Span) -> None:
        self._append(list(span))

    def finish(self) -> None:
        with self.path.open("ab") as file:
            file.write(b'"complete"\n')
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _append(self, line: list[Any]) -> None:
        """In one write: several threads add lines."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)

    def _of(self, digest: str) -> list[Any]:
        head, *lines = self._lines() or [None]
        is_ours = isinstance(head, dict) and head.get("digest") == digest
        return lines if is_ours else []

    def _lines(self) -> list[Any]:
        try:
            whole = self.path.read_bytes().rpartition(b"\n")[0].splitlines()
        except FileNotFoundError:
            return []
        return [record for record in map(_parse, whole) if record is not None]


def _numbers(line: Any) -> int:
    """How many numbers follow the path in a line; 0 when it is no such line."""
    if not isinstance(line, list) or len(line) < 2:
        return 0
    return len(line) - 1 if all(type(each) is int for each in line[1:]) else 0


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
