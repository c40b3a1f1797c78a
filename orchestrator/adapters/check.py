"""Whether a folder holds exactly the tree of a manifest, byte for byte; with all cores."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from remote.contract import CHUNK_BYTES, FileEntry, Manifest

WORKERS = os.cpu_count() or 1
AHEAD = 2  # chunks of a file that are in memory besides the one that is read
# Fewer bytes than this are hashed sooner than a thread begins.
ALONE_BYTES = CHUNK_BYTES
Told = Callable[[int], None]
Part = tuple[FileEntry, int]


class _Wrong(Exception):
    """A file is none that could be of the tree."""


def problems(root: Path, manifest: Manifest, told: Told = lambda size_bytes: None) -> list[str]:
    """One line for each file that is missing, too many, no regular file or of other bytes; the
    first chunk that differs is named. `told` hears how many more bytes were read."""
    wrong: dict[str, list[str]] = {}
    for (entry, index), said in _examined(root, manifest):
        told(_length(entry, index))
        if said:
            wrong.setdefault(entry.path, []).append(said)
    return _lines(root, manifest, wrong)


def is_whole(root: Path, manifest: Manifest) -> bool:
    """Whether every byte of the tree is there; what lies beside it is not looked at."""
    return not any(said for _, said in _examined(root, manifest))


def contradictions(
    root: Path, manifest: Manifest, told: Told = lambda size_bytes: None
) -> list[str]:
    """As `problems`, and a line for each file whose chunks are right and not its whole: then it is
    the manifest that lies. Files are read in order for that, each by one thread."""
    one = threading.Lock()

    def tell(size_bytes: int) -> None:
        with one:
            told(size_bytes)

    with ThreadPoolExecutor(WORKERS) as files, ThreadPoolExecutor(WORKERS) as chunks:
        read = files.map(lambda entry: _read(root, entry, chunks, tell), manifest.files)
        wrong = {e.path: said for e, said in zip(manifest.files, read, strict=True) if said}
    return _lines(root, manifest, wrong)


def _examined(root: Path, manifest: Manifest) -> Iterator[tuple[Part, str]]:
    parts = list(_parts(manifest))
    if manifest.size_bytes <= ALONE_BYTES:
        yield from ((part, _wrong(root, *part)) for part in parts)
        return
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from zip(parts, pool.map(lambda part: _wrong(root, *part), parts), strict=True)


def _parts(manifest: Manifest) -> Iterator[Part]:
    """The chunks of every file; of an empty one the file itself."""
    for entry in manifest.files:
        for index in range(max(1, len(entry.chunks))):
            yield entry, index


def _wrong(root: Path, entry: FileEntry, index: int) -> str:
    try:
        with _opened(root, entry) as file:
            return _differs(entry, index, _chunk(file, index)) if entry.chunks else ""
    except _Wrong as error:
        return str(error)


def _read(root: Path, entry: FileEntry, pool: ThreadPoolExecutor, told: Told) -> list[str]:
    """What is wrong with a file, chunk by chunk, else with its whole."""
    whole, said = hashlib.sha256(), list[str]()
    waiting: deque[Future[str]] = deque()
    try:
        with _opened(root, entry) as file:
            for index in range(len(entry.chunks)):
                data = _chunk(file, index)
                waiting.append(pool.submit(_differs, entry, index, data))
                whole.update(data)
                told(_length(entry, index))
                if len(waiting) > AHEAD:
                    said.append(waiting.popleft().result())
    except _Wrong as error:
        return [str(error)]
    said += [each.result() for each in waiting]
    if not any(said) and whole.hexdigest() != entry.sha256:
        return ["its manifest contradicts itself: the chunks are right and are not the whole"]
    return [each for each in said if each]


@contextmanager
def _opened(root: Path, entry: FileEntry) -> Iterator[int]:
    """A descriptor of a regular file of the right size. Raises _Wrong."""
    try:
        file = os.open(root / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise _Wrong("missing") from error
    except OSError as error:
        raise _unreadable(error) from error
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _Wrong("not a regular file")
        if found.st_size != entry.size:
            raise _Wrong(f"{found.st_size} bytes instead of {entry.size}")
        yield file
    finally:
        os.close(file)


def _chunk(file: int, index: int) -> bytes:
    try:
        return os.pread(file, CHUNK_BYTES, index * CHUNK_BYTES)
    except OSError as error:
        raise _unreadable(error) from error


def _differs(entry: FileEntry, index: int, data: bytes) -> str:
    if hashlib.sha256(data).hexdigest() == entry.chunks[index]:
        return ""
    return f"other bytes than were verified in chunk {index} (from byte {index * CHUNK_BYTES})"


def _unreadable(error: OSError) -> _Wrong:
    return _Wrong(f"cannot be read ({error.strerror})")


def _lines(root: Path, manifest: Manifest, wrong: dict[str, list[str]]) -> list[str]:
    known = {entry.path for entry in manifest.files}
    strangers = [f"{path}: not in the manifest" for path in sorted(set(_paths(root)) - known)]
    return [*strangers, *(f"{path}: {_together(said)}" for path, said in sorted(wrong.items()))]


def _paths(root: Path) -> Iterable[str]:
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in files + links:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _together(said: list[str]) -> str:
    """What is wrong with a file: with all of it, or with its first bad chunk and so many more."""
    different = list(dict.fromkeys(said))
    more = len(different) - 1
    return different[0] + (f" and in {more} more chunk{'s' if more > 1 else ''}" if more else "")


def _length(entry: FileEntry, index: int) -> int:
    return min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES)
