"""Turns a complete pin into a seal: hashed in one read, its manifest written last.

A seal must not change under its manifest, and a trainer may write into an inode that it wrote
before. So a file of a seal is a private copy where that is cheap: a clone, or for a small file a
copy made by the read that hashes it anyway. A larger one is hard-linked, so that the seal is
there soon, and copied afterwards (`private.py`) where there is room. As long as it is linked, a
rewrite shows in size or mtime, is never served, and is reported. Only files that the trainer
does not share are made read-only: the mode belongs to the inode, and a trainer that is not root
could not save to its own file again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Dict, FrozenSet, List, Optional, Tuple, cast

from remote.agent.durable import read_json, utc_now, write_bytes, write_json
from remote.agent.scan import Identity, Listing, from_json, to_json
from remote.contract import PROTOCOL, ContractError, FileEntry, Manifest, hash_stream

COPY_BYTES = 8 * 1024 * 1024
_FICLONE = 0x40049409


class Changed(Exception):
    """A pinned file was written while it was being sealed."""


@dataclass(frozen=True)
class Job:
    """What to seal: `files` below `pin` as they were judged; those in `copied` are ours alone.
    `known` is how the trainer's folder looked, so that it is not taken for something new."""

    seals: Path
    pin: Path
    files: Listing
    copied: FrozenSet[str]
    known: Listing
    name: str
    generation: int
    attempt: int
    step: Optional[int]
    max_steps: Optional[int]
    world_size: Optional[int]
    final: bool


@dataclass(frozen=True)
class Seal:
    """A checkpoint found complete: `folder/tree` holds it as `manifest` says, until `forgotten`.
    `tree` is how its files look while nobody touched them."""

    folder: Path
    manifest: Manifest
    tree: Dict[str, Tuple[int, int]]
    known: Listing
    max_steps: Optional[int]

    @staticmethod
    def load(folder: Path) -> Optional[Seal]:
        """None for a seal that was never finished."""
        record = read_json(folder / "seal.json")
        try:
            manifest = Manifest.decode((folder / "manifest.json").read_bytes())
        except (FileNotFoundError, ContractError):
            return None
        if record is None:
            return None
        tree = {path: (int(each[0]), int(each[1])) for path, each in record["tree"].items()}
        return Seal(folder, manifest, tree, from_json(record["known"]), record["max_steps"])

    @property
    def name(self) -> str:
        return str(self.manifest.meta["name"])

    @property
    def generation(self) -> int:
        return int(self.manifest.meta["generation"])

    @property
    def sealed_at(self) -> str:
        return str(self.manifest.meta["sealed_at"])

    @property
    def is_held(self) -> bool:
        """Whether its bytes are still here."""
        return (self.folder / "tree").is_dir()

    @property
    def is_acked(self) -> bool:
        return (self.folder / "acked").exists()

    def is_intact(self, path: str, found: os.stat_result) -> bool:
        return self.tree.get(path) == (found.st_size, found.st_mtime_ns)

    def rewritten(self) -> Optional[str]:
        """The first file that is not what was sealed, if any."""
        for path in self.tree:
            try:
                found = (self.folder / "tree" / path).lstat()
            except FileNotFoundError:
                return path if self.is_held else None
            if not self.is_intact(path, found):
                return path
        return None

    def forget(self) -> None:
        """Delete the bytes; what it was stays on record."""
        tree, gone = self.folder / "tree", self.folder / "tree.gone"
        with contextlib.suppress(FileNotFoundError):
            tree.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def fact(self) -> Dict[str, Any]:
        meta = self.manifest.meta
        kept = ("attempt", "name", "generation", "step", "final", "world_size")
        return {
            **{key: meta[key] for key in kept},
            "max_steps": self.max_steps,
            "size_bytes": self.manifest.size_bytes,
            "digest": self.manifest.digest,
        }


def load_seals(folder: Path) -> List[Seal]:
    """All finished seals, oldest first."""
    if not folder.is_dir():
        return []
    seals = [seal for seal in map(Seal.load, folder.iterdir()) if seal]
    return sorted(seals, key=lambda seal: (seal.sealed_at, seal.name))


def seal_folder(seals: Path, name: str, generation: int) -> Path:
    return seals / ("%s.%d" % (name, generation))


def make_seal(job: Job) -> Seal:
    """Hash and keep the pinned files. Repeatable after any crash: one that is finished stays.

    Raises Changed when one of them is written meanwhile, OSError when the disk fails."""
    folder = seal_folder(job.seals, job.name, job.generation)
    sealed = Seal.load(folder)
    if sealed:
        return sealed
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tree").mkdir(parents=True)
    room = _Room(folder, sum(identity.size for identity in job.files.values()))
    entries = [_keep(job, folder / "tree", path, room) for path in sorted(job.files)]
    for path in job.files:
        _check(job, path, (job.pin / path).lstat())
    manifest = Manifest(tuple(entries), _meta(job))
    tree = {path: (folder / "tree" / path).lstat() for path in job.files}
    record = {
        "v": PROTOCOL,
        "max_steps": job.max_steps,
        "tree": {path: [found.st_size, found.st_mtime_ns] for path, found in tree.items()},
        "known": to_json(job.known),
    }
    write_json(folder / "seal.json", record)
    write_bytes(folder / "manifest.json", manifest.encode())
    return cast(Seal, Seal.load(folder))


def _meta(job: Job) -> Dict[str, Any]:
    return {
        "name": job.name,
        "generation": job.generation,
        "step": job.step,
        "final": job.final,
        "attempt": job.attempt,
        "world_size": job.world_size,
        "sealed_at": utc_now(),
    }


class _Room:
    """How many bytes may be copied: the trainer's next checkpoint has to fit too."""

    def __init__(self, folder: Path, size: int) -> None:
        disk = shutil.disk_usage(folder)
        self._left = disk.free - max(2 * size, disk.total // 20)

    def take(self, size: int) -> bool:
        if size > COPY_BYTES or size > self._left:
            return False
        self._left -= size
        return True


def _keep(job: Job, tree: Path, path: str, room: _Room) -> FileEntry:
    """Put one file into the tree and return its entry, from a single read."""
    target = tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(job.pin / path, flags), "rb") as stream:
        before = os.fstat(stream.fileno())
        _check(job, path, before)
        entry = _place(job, path, stream, target, room)
        _check(job, path, os.fstat(stream.fileno()))
    if entry.size != before.st_size:
        raise Changed(path)
    if target.lstat().st_nlink <= 2:  # the pin's name and ours: the trainer has none any more
        target.chmod(0o555 if entry.executable else 0o444)
    return entry


def _place(job: Job, path: str, stream: BinaryIO, target: Path, room: _Room) -> FileEntry:
    found = os.fstat(stream.fileno())
    executable = bool(found.st_mode & stat.S_IXUSR)
    if path not in job.copied and not _clone(stream, target):
        if room.take(found.st_size):
            with target.open("xb") as copy:
                return hash_stream(cast(BinaryIO, _Tee(stream, copy)), path, executable)
        _link_or_copy(job.pin / path, target)
    elif path in job.copied:
        _link_or_copy(job.pin / path, target)
    return hash_stream(stream, path, executable)


def _check(job: Job, path: str, found: os.stat_result) -> None:
    expected = job.files[path]
    same = found.st_size == expected.size and stat.S_ISREG(found.st_mode)
    if not same or (path not in job.copied and Identity.of(found) != expected):
        raise Changed(path)


def _clone(stream: BinaryIO, target: Path) -> bool:
    """Share the blocks, copied on write, where the file system can."""
    with target.open("xb") as copy, contextlib.suppress(OSError):
        fcntl.ioctl(copy.fileno(), _FICLONE, stream.fileno())
        return True
    target.unlink()
    return False


class _Tee:
    """Reads from one file what it writes to another."""

    def __init__(self, source: BinaryIO, copy: BinaryIO) -> None:
        self._source = source
        self._copy = copy

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._copy.write(data)
        return data


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        shutil.copyfile(source, target, follow_symlinks=False)
