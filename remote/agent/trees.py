"""Puts a verified tree of files in place: durably, in one step, and never through a link that
leads out of it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Optional, cast

from remote.agent.aside import SUPERSEDED, set_aside
from remote.agent.durable import fsync_file, fsync_folder
from remote.agent.paths import below_home
from remote.agent.replies import Refusal
from remote.contract import FileEntry, Manifest

BLOCK_BYTES = 1024 * 1024
Moved = Callable[[int], None]


def _untold(size: int) -> None:
    """Nobody wants to know."""


def resolve(dest: str) -> Path:
    """Where a tree is to be put: absolute, or below the home folder. Raises Refusal."""
    if not dest or "\n" in dest or ".." in dest.split("/"):
        raise Refusal("refused", "not a destination: %r" % dest)
    path = below_home(dest)
    if path in (Path("/"), Path.home()):
        raise Refusal("refused", "%s is no place for a tree" % path)
    return path


def matches(path: Path, entry: FileEntry, moved: Moved = _untold) -> bool:
    """Whether a regular file of these bytes is at `path`. `moved` is told the bytes of each block
    that was read."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
            return False
        with _open(path) as stream:
            whole = hashlib.sha256()
            for block in iter(lambda: stream.read(BLOCK_BYTES), b""):
                whole.update(block)
                moved(len(block))
            return whole.hexdigest() == entry.sha256
    except (FileNotFoundError, NotADirectoryError):
        return False


def holds_exactly(folder: Path, manifest: Manifest, moved: Moved = _untold) -> bool:
    """Whether `folder` is this tree and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {entry.path for entry in manifest.files}
    present = {path.relative_to(folder).as_posix() for path in _leaves(folder)}
    return present == names and all(
        matches(folder / each.path, each, moved) for each in manifest.files
    )


def copy_verified(source: Path, target: Path, entry: FileEntry, moved: Moved = _untold) -> None:
    """Write a durable copy of `source` to `target`, new. Raises Refusal `changed` when the bytes
    are not those of `entry`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = hashlib.sha256()
    with _open(source) as reader, target.open("xb") as writer:
        for block in iter(lambda: reader.read(BLOCK_BYTES), b""):
            whole.update(block)
            writer.write(block)
            moved(len(block))
        writer.flush()
        os.fchmod(writer.fileno(), _mode(entry))
        os.fsync(writer.fileno())
    if whole.hexdigest() != entry.sha256:
        target.unlink()
        raise Refusal("changed", "%r is not what its manifest says" % entry.path)


def place_file(staged: Path, dest: Path, entry: FileEntry) -> None:
    """Move one verified file to its place below `dest`, replacing what is there."""
    target = dest / entry.path
    check_inside(dest, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        raise Refusal("refused", "%s is a folder" % target)
    staged.chmod(_mode(entry))
    fsync_file(staged)
    try:
        staged.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(".%s.gpujob" % entry.sha256[:16])
        beside.unlink(missing_ok=True)
        copy_verified(staged, beside, entry)
        beside.replace(target)


def place_folder(staged: Path, dest: Path) -> None:
    """Make the folder `staged` be `dest` by one rename; what was there is kept, set aside."""
    sync_folders(staged)
    dest.parent.mkdir(parents=True, exist_ok=True)
    if dest.exists() or dest.is_symlink():
        set_aside(dest, dest.parent / SUPERSEDED)
    staged.rename(dest)
    fsync_folder(dest.parent)


def staging_beside(dest: Path, digest: str) -> Path:
    """A folder on the file system of `dest`, under a name that no trainer looks for, with what a
    killed process left in it. Only for who holds `Root.restore_lock`."""
    folder = dest.parent / (".gpujob-%s" % digest[:16])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep_only(folder: Path, manifest: Manifest) -> None:
    """Delete what is none of these files."""
    names = {entry.path for entry in manifest.files}
    for path in list(_leaves(folder)):
        if path.relative_to(folder).as_posix() not in names:
            path.unlink()


def check_inside(dest: Path, target: Path) -> None:
    """Raises Refusal when a link on the way from `dest` to `target` leads out of it, or a file
    is in the way."""
    real, parent = Path(os.path.realpath(dest)), target.parent
    found = Path(os.path.realpath(parent))
    if found != real and real not in found.parents:
        raise Refusal("refused", "%s leads out of %s" % (parent, dest))
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise Refusal("refused", "%s is a file" % parent)


def sync_folders(root: Path, within: Optional[Iterable[Path]] = None) -> None:
    """fsync `root` and the folders below it, or those of `within` alone; deepest first."""
    folders = (
        {root, *(path for path in root.rglob("*") if path.is_dir())}
        if within is None
        else (set(within) | {root})
    )
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        fsync_folder(folder)


def _leaves(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _open(path: Path) -> BinaryIO:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    return cast(BinaryIO, os.fdopen(os.open(path, flags), "rb"))


def _mode(entry: FileEntry) -> int:
    return 0o755 if entry.executable else 0o644
