"""A copy of a published checkpoint where a person wants it: verified, whole at once, resumable."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.adapters.check import problems
from orchestrator.adapters.durable import disk_room, sync_folder, sync_folders
from orchestrator.adapters.published import Held
from orchestrator.errors import GpujobError, IntegrityError, NotFound
from remote.contract import CHUNK_BYTES, FileEntry, Manifest

Told = Callable[[int], None]


def copy_out(
    checkpoint: Held,
    dest: Path,
    files: tuple[FileEntry, ...] | None = None,
    *,
    told: Told = lambda size_bytes: None,
) -> bool:
    """Put a verified, writable copy of the checkpoint, or of `files` of it, at `dest` in one
    step; False when it is there already. A copy that was interrupted is gone on with.

    Raises IntegrityError when the mirror's own copy is damaged, GpujobError when something else
    is at `dest` or another copy is on its way there."""
    wanted = checkpoint.manifest if files is None else Manifest(files)
    if os.path.lexists(dest):
        if not problems(dest, wanted, told):
            return False
        raise GpujobError(
            f"{dest} exists and holds something else; nothing was changed.",
            hint="name another place with --to, or move that one away",
        )
    dest = dest.absolute()
    beside = dest.with_name(f".{dest.name}.gpujob.partial")
    with disk_room(dest.parent, safe=f"The checkpoint is intact in {checkpoint.path}."):
        dest.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir(exist_ok=True)
        with _alone(beside, dest):
            _remove_strangers(beside, wanted)
            _fill(checkpoint, wanted, beside, told)
            sync_folders(beside)
            beside.rename(dest)
        sync_folder(dest.parent)
    return True


@contextmanager
def _alone(beside: Path, dest: Path) -> Iterator[None]:
    descriptor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise GpujobError(
            f"another `gpujob pull` writes to {dest} now", hint="wait for it, or name another place"
        ) from error
    finally:
        os.close(descriptor)


def _fill(checkpoint: Held, wanted: Manifest, beside: Path, told: Told) -> None:
    try:
        for entry in wanted.files:
            _copy(checkpoint, entry, beside / entry.path, told)
    except IntegrityError:
        shutil.rmtree(beside)
        raise


def _remove_strangers(beside: Path, wanted: Manifest) -> None:
    """What an interrupted copy of something else left."""
    known = {entry.path for entry in wanted.files}
    for path in sorted(beside.rglob("*"), reverse=True):
        if path.is_symlink() or (
            path.is_file() and path.relative_to(beside).as_posix() not in known
        ):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _copy(checkpoint: Held, entry: FileEntry, target: Path, told: Told) -> None:
    """Hashed as it is read; what an earlier try copied whole is hashed instead of copied."""
    source = checkpoint.path / entry.path
    if _is_whole(target, entry):
        told(entry.size)
        return
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        whole = _copy_bytes(_blocks(source, checkpoint.path.parent), target, told)
    except FileNotFoundError as error:
        raise NotFound(
            f"{source} is gone: `checkpoints.keep` may have let it go meanwhile",
            hint="`gpujob checkpoints` lists what is here",
        ) from error
    if whole != entry.sha256:
        raise IntegrityError(
            f"{source} is damaged: its bytes are not those that were verified. Nothing is left at"
            " the place you named.",
            hint="gpujob checkpoints verify",
        )
    target.chmod(0o755 if entry.executable else 0o644)


def _is_whole(target: Path, entry: FileEntry) -> bool:
    if target.is_symlink() or not target.is_file() or target.stat().st_size != entry.size:
        return False
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256


def _copy_bytes(blocks: Iterator[bytes], target: Path, told: Told) -> str:
    total = hashlib.sha256()
    with target.open("wb") as writer:
        for block in blocks:
            total.update(block)
            writer.write(block)
            told(len(block))
        writer.flush()
        os.fsync(writer.fileno())
    return total.hexdigest()


def _blocks(source: Path, mirror: Path) -> Iterator[bytes]:
    """A disk that cannot be read is the mirror's, whatever the other one takes."""
    with disk_room(mirror, safe="Nothing is at the place you named."):
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as reader:
            while block := reader.read(CHUNK_BYTES):
                yield block
