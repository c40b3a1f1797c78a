"""Transfers under way: a folder for each tree, named after its bytes, that one transfer has to
itself. What two boxes call by the same name never meets in one folder."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.adapters.durable import disk_room, make_folder
from orchestrator.adapters.journal import Chunk, Journal
from orchestrator.errors import Transient
from orchestrator.ports import Held
from remote.contract import FileEntry, Manifest

SHORT = 16


class Incoming:
    """The transfers below `folder`; `safe` is what to say when the disk takes nothing more."""

    def __init__(self, folder: Path, *, safe: str) -> None:
        self._folder = folder
        self._safe = safe

    def place(self, digest: str) -> Path:
        return self._folder / f"{digest[:SHORT]}.partial"

    @contextmanager
    def alone(self, place: Path) -> Iterator[None]:
        """Nobody else, here or in another process, fills the folder meanwhile. Raises Transient
        when somebody does."""
        lock = place.with_name(place.name + ".lock")
        with disk_room(self._folder.parent, safe=self._safe):
            make_folder(self._folder, mode=0o755)
            file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(file, lock)
            yield
            if not place.exists():
                lock.unlink(missing_ok=True)
        finally:
            os.close(file)

    def begin(self, manifest: Manifest, held: Iterable[Held]) -> None:
        """Make the folder. Files that a published checkpoint has as well are linked into it and
        journaled, for the transfer to hash and not to fetch."""
        place = self.place(manifest.digest)
        journal = Journal(place)
        if place.is_dir() and (journal.chunks(manifest.digest) or journal.spans(manifest.digest)):
            remove_strangers(place, manifest)
            return
        shutil.rmtree(place, ignore_errors=True)
        make_folder(place, mode=0o755)
        linked = list(_link_known(place, manifest, held))
        if linked:
            journal.begin(manifest.digest, linked)

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove what transfers left that nobody goes on with."""
        keep = {self.place(digest) for digest in wanted}
        for place in set(self._folder.glob("*.partial")) - keep:
            with suppress(Transient), self.alone(place):
                Journal(place).remove()
                shutil.rmtree(place, ignore_errors=True)


def remove_strangers(place: Path, manifest: Manifest) -> None:
    """The folder is ours: what others put there (a network file system, a program that copies
    folders) is no part of the tree, and holds nothing up."""
    files = {place / entry.path for entry in manifest.files}
    folders = {parent for path in files for parent in path.parents}
    for path in sorted(place.rglob("*")):
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and path not in folders:
            shutil.rmtree(path, ignore_errors=True)
        elif not is_folder and not (path in files and path.is_file() and not path.is_symlink()):
            path.unlink(missing_ok=True)


def _take(file: int, lock: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it may have removed it since: then the next one makes another.
        if os.fstat(file).st_ino == lock.stat().st_ino:
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise Transient("another transfer of the same checkpoint is under way")


def _link_known(place: Path, manifest: Manifest, held: Iterable[Held]) -> Iterator[Chunk]:
    known = {
        (entry.size, entry.sha256): each.path / entry.path
        for each in held
        for entry in each.manifest.files
    }
    for entry in manifest.files:
        source = known.get((entry.size, entry.sha256))
        if entry.chunks and source and _link(source, place / entry.path, entry):
            yield from ((entry.path, index) for index in range(len(entry.chunks)))


def _link(source: Path, target: Path, entry: FileEntry) -> bool:
    """Whether `target` is now the published file; the transfer hashes it before it trusts it."""
    with suppress(OSError):
        if source.is_symlink() or source.stat().st_size != entry.size:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(source)
        return True
    return False
