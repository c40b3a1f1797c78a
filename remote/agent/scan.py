"""What lies in a checkpoint folder: regular files and who they are. Nothing is followed or read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from remote.contract import MAX_FILES, ContractError, check_path

_MAX_DEPTH = 16
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Identity(NamedTuple):
    """One version of one file: a write changes size or mtime, a replacement the inode."""

    dev: int
    ino: int
    size: int
    mtime_ns: int

    @staticmethod
    def of(found: os.stat_result) -> Identity:
        return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def same_inode(self, other: Identity) -> bool:
        return (self.dev, self.ino) == (other.dev, other.ino)


Listing = Dict[str, Identity]


def list_tree(folder: Path) -> Listing:
    """Every regular file below `folder` by its relative path; empty when it is gone.

    Raises ContractError for what cannot be a checkpoint (too many files, too deep)."""
    return _listing(_walk(folder, "", _MAX_DEPTH))


def list_files(folder: Path) -> Listing:
    """The regular files right in `folder`."""
    return _listing(_walk(folder, "", 0))


def left_behind(folder: Path) -> Dict[str, str]:
    """What no manifest may hold, by its path: links, pipes, sockets, devices, strange names."""
    return {
        path: _kind(status.st_mode)
        for path, status in _entries(folder, "", _MAX_DEPTH)
        if not stat.S_ISREG(status.st_mode) or not _can_be_named(path)
    }


def to_json(listing: Listing) -> Dict[str, List[int]]:
    return {path: list(identity) for path, identity in listing.items()}


def from_json(record: Any) -> Listing:
    """What `to_json` made; empty for anything else."""
    try:
        return {str(path): Identity(*map(int, words)) for path, words in record.items()}
    except (AttributeError, TypeError, ValueError):
        return {}


def _listing(found: Iterator[Tuple[str, Identity]]) -> Listing:
    listing: Listing = {}
    for path, identity in found:
        listing[path] = identity
        if len(listing) > MAX_FILES:
            raise ContractError("a folder holds more than %d files" % MAX_FILES)
    return listing


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[Tuple[str, Identity]]:
    for path, status in _entries(folder, prefix, depth):
        if stat.S_ISREG(status.st_mode) and _can_be_named(path):
            yield path, Identity.of(status)


def _entries(folder: Path, prefix: str, depth: int) -> Iterator[Tuple[str, os.stat_result]]:
    """Whatever is no folder, unsorted; a folder with too many entries is not read to its end."""
    found: List["os.DirEntry[str]"] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry)
                if len(found) > MAX_FILES:
                    raise ContractError("a folder holds more than %d entries" % MAX_FILES)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        path = prefix + entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            yield path, status
        elif depth > 0:
            yield from _entries(folder / entry.name, path + "/", depth - 1)


def _kind(mode: int) -> str:
    return next((word for is_kind, word in _KINDS if is_kind(mode)), "a name that cannot travel")


def _can_be_named(path: str) -> bool:
    """A name that no manifest may hold is left behind, as a symbolic link is."""
    try:
        check_path(path)
    except ContractError:
        return False
    return True
