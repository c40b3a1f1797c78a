"""A folder that fills up with verified bytes, and the journal that remembers which.

Nothing in it is followed or trusted: names come from a box, and what an earlier, killed transfer
left is hashed again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from orchestrator.adapters.durable import make_folder, sync_folders
from orchestrator.adapters.journal import Chunk, Journal, Span
from orchestrator.errors import GpujobError, IntegrityError
from remote.contract import CHUNK_BYTES, FileEntry, Manifest

HASHERS = min(4, os.cpu_count() or 1)
READ_ONLY, READ_ONLY_PROGRAM = 0o444, 0o555
_TRAPS = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


class Partial:
    """The folder at `root` while it becomes the tree of `manifest`. Several threads may write."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self.journal = Journal(root)
        self.received: dict[Chunk, list[tuple[int, int]]] = {}
        self.root = root
        self._entries = {entry.path: entry for entry in manifest.files}
        self._ready: set[str] = set()
        self._claimed: set[Chunk] = set()
        self._making = threading.Lock()

    def resume(self) -> set[Chunk]:
        """The chunks that are here, each hashed again. What else an earlier try received is in
        `received`, as ranges (first, end) of a chunk: unverified. The rest of the journal is
        forgotten."""
        digest = self.manifest.digest
        journaled = set(self.journal.chunks(digest))
        spans = self._by_chunk(self.journal.spans(digest), journaled)
        if not journaled and not spans:
            self._clear()
        make_folder(self.root, mode=0o755)
        whole = {chunk for chunk, ranges in spans.items() if self._covers(chunk, ranges)}
        verified = self._verified(sorted(journaled | whole))
        spans = {chunk: ranges for chunk, ranges in spans.items() if chunk not in whole}
        for entry in self.manifest.files:
            chunks = {(entry.path, index) for index in range(len(entry.chunks))}
            is_begun = bool(chunks & verified or chunks & spans.keys())
            if is_begun and not chunks <= verified and not self._reclaim(entry):
                verified -= chunks
                spans = {chunk: ranges for chunk, ranges in spans.items() if chunk not in chunks}
        self.received = spans
        self.journal.begin(digest, sorted(verified), self._spans(spans))
        return verified

    def create_empty(self, entry: FileEntry) -> None:
        with self._opened(entry, os.O_RDWR | os.O_CREAT) as file:
            os.ftruncate(file, 0)

    def write(self, entry: FileEntry, index: int, data: bytes) -> None:
        """Put a verified chunk into its file, then into the journal."""
        self.put(entry, index * CHUNK_BYTES, data)
        self.journal.add((entry.path, index))

    def put(self, entry: FileEntry, offset: int, data: bytes | memoryview) -> None:
        """Write bytes that nothing vouches for yet."""
        self._prepare(entry)
        with self._opened(entry, os.O_RDWR) as file:
            self._claim(file, entry, offset // CHUNK_BYTES)
            left = memoryview(data)
            while left:
                written = os.pwrite(file, left, offset)
                left, offset = left[written:], offset + written

    def read(self, entry: FileEntry, offset: int, length: int) -> bytes:
        with self._opened(entry, os.O_RDONLY) as file:
            return os.pread(file, length, offset)

    def seal(self, entry: FileEntry) -> None:
        """The file is whole: read-only and durable."""
        with self._opened(entry, os.O_RDONLY) as file:
            os.fchmod(file, READ_ONLY_PROGRAM if entry.executable else READ_ONLY)
            os.fsync(file)

    def finish(self) -> None:
        sync_folders(self.root)
        self.journal.finish()

    def _clear(self) -> None:
        """Another transfer's remains go; anything else that is here is somebody's."""
        if not self.root.name.endswith(".partial") and _is_occupied(self.root):
            raise GpujobError(f"{self.root} is not empty; nothing in it was changed.")
        if self.root.exists():
            shutil.rmtree(self.root)

    def _verified(self, chunks: list[Chunk]) -> set[Chunk]:
        if len(chunks) < 2:
            return {chunk for chunk in chunks if self._holds(chunk)}
        with ThreadPoolExecutor(HASHERS) as pool:
            good = pool.map(self._holds, chunks)
            return {chunk for chunk, is_good in zip(chunks, good, strict=True) if is_good}

    def _by_chunk(
        self, spans: Iterable[Span], but: set[Chunk]
    ) -> dict[Chunk, list[tuple[int, int]]]:
        """The ranges inside of chunks, without those that reach over a chunk's edge."""
        found: dict[Chunk, list[tuple[int, int]]] = {}
        for path, offset, length in spans:
            entry, chunk = self._entries.get(path), (path, offset // CHUNK_BYTES)
            first = offset % CHUNK_BYTES
            if not entry or chunk in but or offset < 0 or length < 1:
                continue
            if first + length <= CHUNK_BYTES and offset + length <= entry.size:
                found.setdefault(chunk, []).append((first, first + length))
        return {chunk: ranges for chunk, ranges in found.items() if self._is_there(chunk[0])}

    def _covers(self, chunk: Chunk, ranges: list[tuple[int, int]]) -> bool:
        """Whether all of the chunk came, although nobody had the time to hash it."""
        path, index = chunk
        end = 0
        for first, until in sorted(ranges):
            end = max(end, until) if first <= end else end
        return end == min(CHUNK_BYTES, self._entries[path].size - index * CHUNK_BYTES)

    def _spans(self, received: dict[Chunk, list[tuple[int, int]]]) -> Iterator[Span]:
        for (path, index), ranges in received.items():
            for first, end in ranges:
                yield path, index * CHUNK_BYTES + first, end - first

    def _is_there(self, path: str) -> bool:
        entry = self._entries[path]
        try:
            with self._opened(entry, os.O_RDONLY) as file:
                return os.fstat(file).st_size == entry.size
        except FileNotFoundError:
            return False

    def _prepare(self, entry: FileEntry) -> None:
        """Make the file, in its full size, the first time that something is put into it."""
        if entry.path in self._ready:
            return
        with self._making:
            if entry.path in self._ready:
                return
            with self._opened(entry, os.O_RDWR | os.O_CREAT) as file:
                if os.fstat(file).st_size != entry.size:
                    os.ftruncate(file, 0)
                    os.ftruncate(file, entry.size)
            self._ready.add(entry.path)

    def _claim(self, file: int, entry: FileEntry, index: int) -> None:
        """Take the room of a chunk at once, so that its pieces lie together. That of a whole file
        would hold up everything that comes meanwhile."""
        chunk, start = (entry.path, index), index * CHUNK_BYTES
        if chunk not in self._claimed:
            self._claimed.add(chunk)
            _allocate(file, start, min(CHUNK_BYTES, entry.size - start))

    def _reclaim(self, entry: FileEntry) -> bool:
        """Make a file that lacks chunks writable again; False when it is not here, or is
        another checkpoint's as well and has to be fetched whole."""
        try:
            with self._opened(entry, os.O_RDONLY) as file:
                if os.fstat(file).st_nlink > 1:
                    return False
                os.fchmod(file, 0o600)
        except FileNotFoundError:
            return False
        return True

    def _holds(self, chunk: Chunk) -> bool:
        path, index = chunk
        entry = self._entries.get(path)
        if entry is None or not 0 <= index < len(entry.chunks):
            return False
        try:
            with self._opened(entry, os.O_RDONLY) as file:
                if os.fstat(file).st_size != entry.size:
                    return False
                data = os.pread(file, CHUNK_BYTES, index * CHUNK_BYTES)
        except FileNotFoundError:
            return False
        return hashlib.sha256(data).hexdigest() == entry.chunks[index]

    @contextmanager
    def _opened(self, entry: FileEntry, flags: int) -> Iterator[int]:
        try:
            folder = _walk(self.root, entry.path.split("/")[:-1], make=bool(flags & os.O_CREAT))
            try:
                file = _open(folder, entry.path.rpartition("/")[2], flags)
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno not in _TRAPS:
                raise
            raise IntegrityError(
                f"{entry.path} cannot be a regular file below {self.root}: {error.strerror}. "
                "Nothing was written outside the folder.",
                hint=f"remove {self.root} and try again",
            ) from error
        try:
            yield file
        finally:
            os.close(file)


def _walk(root: Path, parts: list[str], *, make: bool) -> int:
    """A descriptor of the folder, reached without following a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    folder = os.open(root, flags)
    for part in parts:
        try:
            if make:
                _make(folder, part)
            below = os.open(part, flags, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _make(folder: int, name: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        return


def _open(folder: int, name: str, flags: int) -> int:
    """Open a regular file. One to be written is ours alone and was not whole before: a file that
    another checkpoint shares, or that is read-only, is replaced and not changed."""
    if flags & os.O_CREAT:
        found = _look(folder, name)
        if found and stat.S_ISREG(found.st_mode) and not _is_ours(found):
            os.unlink(name, dir_fd=folder)
            found = None
        flags = flags if found else flags | os.O_EXCL
    file = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.EEXIST, "something else is there")


def _is_ours(found: os.stat_result) -> bool:
    return found.st_nlink == 1 and bool(found.st_mode & stat.S_IWUSR)


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_occupied(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def _allocate(file: int, offset: int, size: int) -> None:
    try:
        os.posix_fallocate(file, offset, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


__all__ = ["Chunk", "Journal", "Partial"]
