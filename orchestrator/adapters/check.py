"""Whether a folder holds exactly the tree of a manifest, byte for byte; with all cores."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from remote.contract import CHUNK_BYTES, FileEntry, Manifest

WORKERS = os.cpu_count() or 1
# Fewer bytes than this are hashed sooner than a thread begins.
ALONE_BYTES = CHUNK_BYTES
Told = Callable[[int], None]
Part = tuple[FileEntry, int]


def problems(root: Path, manifest: Manifest, told: Told = lambda size_bytes: None) -> list[str]:
    """One line for each file that is missing, too many, no regular file or of other bytes; the
    first chunk that differs is named. `told` hears how many more bytes were read."""
    entries = {entry.path: entry for entry in manifest.files}
    strangers = [f"{path}: not in the manifest" for path in sorted(_paths(root) - entries.keys())]
    wrong: dict[str, list[str]] = {}
    for (entry, index), said in _examined(root, manifest):
        told(_length(entry, index))
        if said:
            wrong.setdefault(entry.path, []).append(said)
    return [*strangers, *(f"{path}: {_together(said)}" for path, said in sorted(wrong.items()))]


def _examined(root: Path, manifest: Manifest) -> Iterator[tuple[Part, str]]:
    parts = list(_parts(manifest))
    if manifest.size_bytes <= ALONE_BYTES:
        yield from ((part, _wrong(root, part)) for part in parts)
        return
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from zip(parts, pool.map(lambda part: _wrong(root, part), parts), strict=True)


def _parts(manifest: Manifest) -> Iterator[Part]:
    """The chunks of every file; of an empty one the file itself."""
    for entry in manifest.files:
        for index in range(max(1, len(entry.chunks))):
            yield entry, index


def _paths(root: Path) -> set[str]:
    names: set[str] = set()
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        names |= {(Path(folder) / name).relative_to(root).as_posix() for name in files + links}
    return names


def _wrong(root: Path, part: Part) -> str:
    entry, index = part
    try:
        file = os.open(root / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    try:
        return _differs(file, entry, index)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    finally:
        os.close(file)


def _differs(file: int, entry: FileEntry, index: int) -> str:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    if found.st_size != entry.size:
        return f"{found.st_size} bytes instead of {entry.size}"
    if not entry.chunks:
        return ""
    data = os.pread(file, CHUNK_BYTES, index * CHUNK_BYTES)
    if hashlib.sha256(data).hexdigest() == entry.chunks[index]:
        return ""
    return f"other bytes than were verified in chunk {index} (from byte {index * CHUNK_BYTES})"


def _together(said: list[str]) -> str:
    """What is wrong with a file: with all of it, or with its first bad chunk and so many more."""
    different = list(dict.fromkeys(said))
    more = len(different) - 1
    return different[0] + (f" and in {more} more chunk{'s' if more > 1 else ''}" if more else "")


def _length(entry: FileEntry, index: int) -> int:
    return min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES)
