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
import fcntl
import os
import shutil
import stat
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Dict, FrozenSet, List, Optional, cast

from remote.agent.durable import utc_now, write_bytes, write_json
from remote.agent.hashing import Hashers
from remote.agent.scan import Identity, Listing, list_tree, to_json
from remote.agent.seal import Seal, seal_folder
from remote.contract import PROTOCOL, FileEntry, Manifest

FINAL = "final"
COPY_BYTES = 8 * 1024 * 1024
_FICLONE = 0x40049409


class Changed(Exception):
    """A pinned file was written while it was being sealed."""


@dataclass(frozen=True)
class Job:
    """What to seal: `files` below `pin` as they were judged, in the order in which they are to be
    fetched; those in `copied` are ours alone.
    `known` is how the trainer's folder looked, so that it is not taken for something new.
    `resumes` is False when it is good for a warm start alone."""

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
    resumes: bool = True


def make_seal(job: Job, workers: int = 1) -> Seal:
    """Hash and keep the pinned files. Repeatable after any crash: one that is finished stays.

    Raises Changed when one of them is written meanwhile, OSError when the disk fails."""
    folder = seal_folder(job.seals, job.name, job.generation)
    sealed = Seal.load(folder)
    if sealed:
        return sealed
    give_back(folder, job.pin)
    try:
        return _make(job, folder, workers)
    except BaseException:
        give_back(folder, job.pin)
        raise


def end_with(seal: Seal, seals: Path, generation: int) -> Seal:
    """The same bytes sealed once more, as the final weights.

    Raises OSError where the file system cannot link, or the bytes are not here any more."""
    folder = seal_folder(seals, FINAL, generation)
    shutil.rmtree(folder, ignore_errors=True)
    for entry in seal.manifest.files:
        target = folder / "tree" / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(seal.folder / "tree" / entry.path, target, follow_symlinks=False)
    meta = {"name": FINAL, "generation": generation, "final": True, "sealed_at": utc_now()}
    manifest = replace(seal.manifest, meta={**seal.manifest.meta, **meta})
    return _finish(folder, manifest, seal.max_steps, {})


def give_back(folder: Path, pin: Path) -> None:
    """Undo a seal that was never finished: what was moved into it goes back to its pin."""
    tree = folder / "tree"
    for path in list_tree(tree) if pin.is_dir() else ():
        target = pin / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (tree / path).replace(target)
    shutil.rmtree(folder, ignore_errors=True)


def _make(job: Job, folder: Path, workers: int) -> Seal:
    (folder / "tree").mkdir(parents=True)
    room = _Room(folder, sum(identity.size for identity in job.files.values()))
    with Hashers(workers) as hashers:
        entries = _keep_all(job, folder / "tree", room, hashers)
    for path in job.files:
        pinned, moved = job.pin / path, folder / "tree" / path
        _check(job, path, (pinned if pinned.exists() else moved).lstat())
    return _finish(folder, Manifest(tuple(entries), _meta(job)), job.max_steps, job.known)


def _keep_all(job: Job, tree: Path, room: _Room, hashers: Hashers) -> List[FileEntry]:
    """The largest first, so that no worker is left with one at the end; told in order."""
    jobs: Dict[str, Future[FileEntry]] = {}
    try:
        for path in sorted(job.files, key=lambda path: -job.files[path].size):
            jobs[path] = hashers.files.submit(_keep, job, tree, path, room, hashers)
        return [jobs[path].result() for path in job.files]
    finally:
        for each in jobs.values():
            each.cancel()


def _finish(folder: Path, manifest: Manifest, max_steps: Optional[int], known: Listing) -> Seal:
    tree = {entry.path: (folder / "tree" / entry.path).lstat() for entry in manifest.files}
    record = {
        "v": PROTOCOL,
        "max_steps": max_steps,
        "tree": {path: [found.st_size, found.st_mtime_ns] for path, found in tree.items()},
        "known": to_json(known),
    }
    (folder / "unacked").touch()
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
        "max_steps": job.max_steps,
        "world_size": job.world_size,
        "resumes": job.resumes,
        "sealed_at": utc_now(),
    }


class _Room:
    """How many bytes may be copied: the trainer's next checkpoint has to fit too."""

    def __init__(self, folder: Path, size: int) -> None:
        disk = shutil.disk_usage(folder)
        self._left = disk.free - max(2 * size, disk.total // 20)
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        with self._lock:
            if size > COPY_BYTES or size > self._left:
                return False
            self._left -= size
            return True


def _keep(job: Job, tree: Path, path: str, room: _Room, hashers: Hashers) -> FileEntry:
    """Put one file into the tree and return its entry, from a single read."""
    target = tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(job.pin / path, flags), "rb") as stream:
        before = os.fstat(stream.fileno())
        _check(job, path, before)
        entry = _place(job, path, stream, target, room, hashers)
        _check(job, path, os.fstat(stream.fileno()))
    if entry.size != before.st_size:
        raise Changed(path)
    if target.lstat().st_nlink <= 2:  # the pin's name and ours: the trainer has none any more
        target.chmod(0o555 if entry.executable else 0o444)
    return entry


def _place(
    job: Job, path: str, stream: BinaryIO, target: Path, room: _Room, hashers: Hashers
) -> FileEntry:
    """What has no name but ours, a copy or what the trainer has deleted, is moved, so that it is on
    the disk once, whatever the file system can."""
    found = os.fstat(stream.fileno())
    executable = bool(found.st_mode & stat.S_IXUSR)
    if path in job.copied or found.st_nlink == 1:
        entry = hashers.entry(stream, path, found.st_size, executable)
        (job.pin / path).replace(target)
        return entry
    if not _clone(stream, target):
        if room.take(found.st_size):
            with target.open("xb") as copy:
                tee = cast(BinaryIO, _Tee(stream, copy))
                return hashers.entry(tee, path, found.st_size, executable)
        os.link(job.pin / path, target, follow_symlinks=False)
    return hashers.entry(stream, path, found.st_size, executable)


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
