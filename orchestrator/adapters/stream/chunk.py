"""One chunk of a file on its way: what came of it, what is asked for, and its digest so far."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from remote.contract import CHUNK_BYTES, FileEntry

Range = tuple[int, int]


class Chunk:
    """Ranges are (first, end) within the chunk. Who uses it holds the lock of `Work`.

    The digest grows with the bytes as long as they come in order, on whatever connection; what
    came out of order is read again from the disk once the chunk is whole."""

    def __init__(self, entry: FileEntry, index: int, got: Sequence[Range] = ()) -> None:
        self.entry = entry
        self.index = index
        self.size = min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES)
        self.tries = 0
        self.is_whole = False
        self.is_hinted = bool(got)
        self._got = merged(got)
        self._asked: list[tuple[int, Range]] = []
        self._hasher = hashlib.sha256()
        self._hashed = 0
        self._is_hashing = False
        self._writing: list[Range] = []

    @property
    def start(self) -> int:
        """Where in its file it begins."""
        return self.index * CHUNK_BYTES

    @property
    def expected(self) -> str:
        return self.entry.chunks[self.index]

    def holes(self) -> list[Range]:
        """What neither came nor is asked for."""
        taken = merged([*self._got, *(each for _, each in self._asked)])
        edges = [(0, 0), *taken, (self.size, self.size)]
        return [(end, first) for (_, end), (first, _) in pairs(edges) if end < first]

    def missing(self) -> int:
        """Bytes that did not come."""
        return self.size - sum(end - first for first, end in self._got)

    def ask(self, who: int, part: Range) -> None:
        self._asked.append((who, part))

    def unask(self, who: int, part: Range | None = None) -> None:
        """`who` will not bring `part`, or anything, any more."""
        self._asked = [
            (asked, each)
            for asked, each in self._asked
            if asked != who or (part is not None and each != part)
        ]

    def begin(self, first: int, end: int) -> tuple[Range, bool] | None:
        """The part of these bytes that is of use, and whether to add it to the digest; then
        `finish` has to follow. No byte is written twice: the later one could be the wrong one."""
        if self.is_whole:
            return None
        taken = merged([*self._got, *self._writing])
        edges = [(first, first), *taken, (end, end)]
        free = [(max(low, first), min(high, end)) for (_, low), (high, _) in pairs(edges)]
        useful = next(((low, high) for low, high in free if low < high), None)
        if useful is None:
            return None
        is_next = useful[0] == self._hashed and not self._is_hashing
        self._is_hashing |= is_next
        self._writing.append(useful)
        return useful, is_next

    def update(self, data: memoryview) -> None:
        """Between `begin` and `finish`, without the lock."""
        self._hasher.update(data)

    def finish(self, part: Range, *, hashed: bool, kept: bool) -> bool:
        """The bytes are on the disk if `kept`; whether that made the chunk whole."""
        self._writing.remove(part)
        if hashed:
            self._hashed, self._is_hashing = part[1], False
        if kept:
            self._got = merged([*self._got, part])
        return self.look()

    def look(self) -> bool:
        """Whether all of it is here."""
        self.is_whole = not self._writing and self._got == [(0, self.size)]
        return self.is_whole

    def is_right(self, read: Callable[[int, int], bytes], block: int) -> bool:
        """Whether a whole chunk is the one of the manifest; `read` gives its bytes on the disk."""
        for first in range(self._hashed, self.size, block):
            self._hasher.update(read(self.start + first, min(block, self.size - first)))
        self._hashed = self.size
        return self._hasher.hexdigest() == self.expected

    def spoil(self) -> None:
        """None of it can be believed."""
        self.tries += not self.is_hinted
        self.is_hinted = self.is_whole = False
        self._got = []
        self._hasher, self._hashed = hashlib.sha256(), 0


@dataclass(frozen=True)
class Part:
    """A range of a chunk, as it is asked for."""

    chunk: Chunk
    first: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.first

    @property
    def offset(self) -> int:
        """Where in the file it begins."""
        return self.chunk.start + self.first

    def to_json(self) -> list[str | int]:
        return [self.chunk.entry.path, self.offset, self.size]


def merged(ranges: Sequence[Range]) -> list[Range]:
    """The same bytes as disjoint ranges, in order."""
    found: list[Range] = []
    for first, end in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found


def pairs(items: Sequence[Range]) -> Iterator[tuple[Range, Range]]:
    return itertools.pairwise(items)
