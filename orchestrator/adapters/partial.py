"""A folder that fills up with verified bytes, and the journal that remembers which.

Nothing in it is followed or trusted: names come from a box, and what an earlier, killed transfer
left is hashed again. The journal lies beside the folder, so that the folder holds the tree alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.adapters.durable import make_folder, sync_folders, write_whole
from orchestrator.errors import GpujobError, IntegrityError
from remote.contract import CHUNK_BYTES, FileEntry, Manifest

Chunk = tuple[str, int]
READ_ONLY, READ_ONLY_PROGRAM = 0o444, 0o555
_TRAPS = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


class Journal:
    """Lines `["path", chunk]` of verified chunks under a first line that names the manifest, and
    `"complete"` once all of them and their files are durable. A torn line counts for nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder.with_name(folder.name + ".journal")

    def chunks(self, digest: str) -> list[Chunk]:
        """What was verified of this manifest's tree; empty for another's journal."""
        head, *lines = self._lines() or [None]
        if not isinstance(head, dict) or head.get("digest") != digest:
            return []
        return [(str(line[0]), int(line[1])) for line in lines if _is_chunk(line)]

    def is_complete(self, digest: str) -> bool:
        lines = self._lines()
        return len(self.chunks(digest)) + 2 == len(lines) and lines[-1] == "complete"

    def begin(self, digest: str, verified: list[Chunk]) -> None:
        """Start again with what is known to be good."""
        lines = [{"v": 1, "digest": digest}, *([path, index] for path, index in verified)]
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def add(self, chunk: Chunk) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(list(chunk)).encode() + b"\n")

    def finish(self) -> None:
        with self.path.open("ab") as file:
            file.write(b'"complete"\n')
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _lines(self) -> list[Any]:
        try:
            whole = self.path.read_bytes().rpartition(b"\n")[0].splitlines()
        except FileNotFoundError:
            return []
        return [record for record in map(_parse, whole) if record is not None]


class Partial:
    """The folder at `root` while it becomes the tree of `manifest`."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self.journal = Journal(root)
        self._root = root
        self._entries = {entry.path: entry for entry in manifest.files}

    def resume(self) -> set[Chunk]:
        """The chunks that are here, each hashed again; the rest of the journal is forgotten."""
        journaled = self.journal.chunks(self.manifest.digest)
        if not journaled:
            self._clear()
        make_folder(self._root, mode=0o755)
        verified = {chunk for chunk in journaled if self._holds(chunk)}
        for entry in self.manifest.files:
            chunks = {(entry.path, index) for index in range(len(entry.chunks))}
            if verified & chunks < chunks and not self._reclaim(entry):
                verified -= chunks
        self.journal.begin(self.manifest.digest, sorted(verified))
        return verified

    def create_empty(self, entry: FileEntry) -> None:
        with self._opened(entry, os.O_RDWR | os.O_CREAT) as file:
            os.ftruncate(file, 0)

    def write(self, entry: FileEntry, index: int, data: bytes) -> None:
        """Put a verified chunk into its file, then into the journal."""
        with self._opened(entry, os.O_RDWR | os.O_CREAT) as file:
            if os.fstat(file).st_size != entry.size:
                os.ftruncate(file, 0)
                _allocate(file, entry.size)
            left, offset = memoryview(data), index * CHUNK_BYTES
            while left:
                written = os.pwrite(file, left, offset)
                left, offset = left[written:], offset + written
        self.journal.add((entry.path, index))

    def hash(self, entry: FileEntry) -> str:
        with self._opened(entry, os.O_RDONLY) as file, os.fdopen(os.dup(file), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def seal(self, entry: FileEntry) -> None:
        """The file is whole: read-only and durable."""
        with self._opened(entry, os.O_RDONLY) as file:
            os.fchmod(file, READ_ONLY_PROGRAM if entry.executable else READ_ONLY)
            os.fsync(file)

    def finish(self) -> None:
        sync_folders(self._root)
        self.journal.finish()

    def _clear(self) -> None:
        """Another transfer's remains go; anything else that is here is somebody's."""
        if not self._root.name.endswith(".partial") and _is_occupied(self._root):
            raise GpujobError(f"{self._root} is not empty; nothing in it was changed.")
        if self._root.exists():
            shutil.rmtree(self._root)

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
            folder = _walk(self._root, entry.path.split("/")[:-1], make=bool(flags & os.O_CREAT))
            try:
                file = _open(folder, entry.path.rpartition("/")[2], flags)
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno not in _TRAPS:
                raise
            raise IntegrityError(
                f"{entry.path} cannot be a regular file below {self._root}: {error.strerror}. "
                "Nothing was written outside the folder.",
                hint=f"remove {self._root} and try again",
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
    """Open a regular file. One to be written is ours alone: a file that another checkpoint
    shares is replaced and not changed."""
    if flags & os.O_CREAT:
        found = _look(folder, name)
        if found and stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            os.unlink(name, dir_fd=folder)
            found = None
        flags = flags if found else flags | os.O_EXCL
    file = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.EEXIST, "something else is there")


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_occupied(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def _allocate(file: int, size: int) -> None:
    """Claim the room now: a full disk shows before the transfer and not at its end."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(file, size)


def _is_chunk(line: Any) -> bool:
    return isinstance(line, list) and len(line) == 2 and isinstance(line[1], int)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
