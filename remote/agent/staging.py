"""Where an upload gathers until it is whole. Several connections, each a process of its own, write
into it at once; what they say of it is one journal, and every byte is hashed before it is used."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Set, Tuple

from remote.agent.durable import write_bytes
from remote.agent.ranges import Part
from remote.agent.replies import Refusal
from remote.contract import CHUNK_BYTES, ContractError, FileEntry, Manifest

BLOCK_BYTES = 1024 * 1024
WORKERS = max(1, min(4, len(os.sched_getaffinity(0)) - 1))
Chunk = Tuple[str, int]
Range = Tuple[int, int]


class Staging:
    """One tree on its way: `folder/tree` holds what came, `folder/ranges` one line for each range
    that did (offset, length, path), `folder/manifest.json` what it is to become."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.tree = folder / "tree"
        self._entries = {entry.path: entry for entry in manifest.files}
        self._journal = folder / "ranges"

    @staticmethod
    def load(folder: Path) -> Optional[Staging]:
        """What another connection has begun; None when nobody has."""
        try:
            return Staging(folder, Manifest.decode((folder / "manifest.json").read_bytes()))
        except (FileNotFoundError, ContractError):
            return None

    def begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "manifest.json").exists():
            write_bytes(self.folder / "manifest.json", self.manifest.encode())

    def put(self, parts: List[Part], payload: bytes) -> None:
        """Write what came. Raises Refusal when it was not offered."""
        if sum(length for _, _, length in parts) != len(payload):
            raise Refusal("refused", "the parts are not the payload")
        for path, offset, length in parts:
            entry = self._entries.get(path)
            if entry is None or offset + length > entry.size:
                raise Refusal("refused", "byte %d of %r was not offered" % (offset, path))
        view, first = memoryview(payload), 0
        for path, offset, length in parts:
            self._write(path, offset, view[first : first + length])
            first += length
        self._note(parts)

    def adopt(self, entry: FileEntry) -> None:
        """The whole file was put into the tree by other means."""
        if entry.size:
            self._note([(entry.path, 0, entry.size)])

    def ranges(self) -> Dict[Chunk, List[Range]]:
        """What came of each chunk, within it, as far as it is there. A torn last line counts for
        nothing."""
        found: Dict[Chunk, List[Range]] = {}
        for path, offset, length in self._noted():
            entry = self._entries.get(path)
            if entry is None or length < 1 or offset + length > entry.size:
                continue
            for index in range(offset // CHUNK_BYTES, (offset + length - 1) // CHUNK_BYTES + 1):
                start = index * CHUNK_BYTES
                low, high = max(offset, start), min(offset + length, start + CHUNK_BYTES)
                found.setdefault((path, index), []).append((low - start, high - start))
        sizes = {path: self._size(path) for path, _ in found}
        return {
            (path, index): merged(each)
            for (path, index), each in found.items()
            if index * CHUNK_BYTES + max(end for _, end in each) <= sizes[path]
        }

    def wrong(self, entries: Iterable[FileEntry]) -> List[Chunk]:
        """The chunks that are not here as the manifest says; they are forgotten."""
        chunks = [(entry, index) for entry in entries for index in range(len(entry.chunks))]
        with ThreadPoolExecutor(WORKERS) as pool:
            looked = pool.map(lambda each: (each, self._is_right(*each)), chunks)
            wrong = [(entry.path, index) for (entry, index), is_right in looked if not is_right]
        if wrong:
            self._forget(set(wrong))
        return wrong

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, path: str, offset: int, data: memoryview) -> None:
        target = self.tree / path
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        try:
            file = os.open(target, flags, 0o600)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(target, flags, 0o600)
        try:
            while data:
                written = os.pwrite(file, data, offset)
                data, offset = data[written:], offset + written
        finally:
            os.close(file)

    def _note(self, parts: List[Part]) -> None:
        """In one write at the end of the file: others do the same at this moment."""
        lines = [b"%d %d %s\n" % (each[1], each[2], os.fsencode(each[0])) for each in parts]
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        file = os.open(self._journal, flags, 0o600)
        try:
            os.write(file, b"".join(lines))
        finally:
            os.close(file)

    def _noted(self) -> Iterable[Part]:
        try:
            lines = self._journal.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        for line in lines:
            words = line.split(b" ", 2)
            if len(words) == 3 and words[0].isdigit() and words[1].isdigit():
                yield os.fsdecode(words[2]), int(words[0]), int(words[1])

    def _forget(self, wrong: Set[Chunk]) -> None:
        kept = [
            b"%d %d %s\n" % (index * CHUNK_BYTES + low, high - low, os.fsencode(path))
            for (path, index), each in self.ranges().items()
            if (path, index) not in wrong
            for low, high in each
        ]
        write_bytes(self._journal, b"".join(kept), durable=False)

    def _size(self, path: str) -> int:
        try:
            return (self.tree / path).lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return -1

    def _is_right(self, entry: FileEntry, index: int) -> bool:
        start = index * CHUNK_BYTES
        end, digest = min(entry.size, start + CHUNK_BYTES), hashlib.sha256()
        try:
            file = os.open(self.tree / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            if os.fstat(file).st_size != entry.size:
                return False
            for offset in range(start, end, BLOCK_BYTES):
                digest.update(os.pread(file, min(BLOCK_BYTES, end - offset), offset))
        finally:
            os.close(file)
        return digest.hexdigest() == entry.chunks[index]


def merged(ranges: Iterable[Range]) -> List[Range]:
    """The same bytes as disjoint ranges, in order."""
    found: List[Range] = []
    for first, end in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found
