"""The port Mirror as a folder: `checkpoint-10/`, `final/`, and what is kept about them in
`.gpujob/` (docs/formats.md §4)."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.check import problems
from orchestrator.adapters.durable import (
    disk_room,
    make_folder,
    sync_folder,
    sync_folders,
    write_whole,
)
from orchestrator.adapters.partial import Chunk, Journal
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.errors import GpujobError, IntegrityError, NotFound
from remote.contract import ContractError, FileEntry, Manifest, check_name

SAFE = "Nothing is lost: the box keeps the checkpoint until it is held here."


@dataclass(frozen=True)
class Held:
    """A published checkpoint and the manifest it was verified against."""

    path: Path
    manifest: Manifest


class FolderMirror:
    """One run's checkpoints below `folder`, which is stamped with the run at first use."""

    def __init__(self, folder: Path, run: str, ledger: str) -> None:
        self.folder = folder
        self._stamp = Stamp(run, ledger)
        self._own = folder / ".gpujob"

    def holds(self, digest: str) -> Path | None:
        """Reads every byte of it: a caller may let the box forget its copy."""
        for each in self._of(digest):
            if not problems(each.path, each.manifest):
                return each.path
        return None

    def manifest(self, digest: str) -> Manifest:
        for each in self._of(digest):
            return each.manifest
        raise NotFound(f"{self.folder} holds no checkpoint with the digest {digest[:12]}.")

    def partial(self, name: str, generation: int, manifest: Manifest | None = None) -> Path:
        """With the manifest, files that a published checkpoint has as well are linked into it
        and journaled, for the transfer to hash and not to fetch."""
        set_stamp(self.folder, self._stamp)
        incoming = self._own / "incoming" / f"{check_name(name)}.{generation}.partial"
        with disk_room(self.folder, safe=SAFE):
            make_folder(incoming, mode=0o755)
            if manifest and not Journal(incoming).chunks(manifest.digest):
                self._link_known(incoming, manifest)
        return incoming

    def publish(self, name: str, generation: int, manifest: Manifest) -> Path:
        partial = self.partial(name, generation)
        journal = Journal(partial)
        with disk_room(self.folder, safe=SAFE), self._locked():
            if not journal.is_complete(manifest.digest):
                if (held := self.holds(manifest.digest)) is None:
                    raise _incomplete(name, partial)
                place = held
            else:
                place = self._place(name, generation, manifest, partial)
            shutil.rmtree(partial, ignore_errors=True)
            journal.remove()
            return place

    def held(self) -> list[Held]:
        return held(self.folder)

    def _place(self, name: str, generation: int, manifest: Manifest, partial: Path) -> Path:
        """Rename the tree to the first name that is free, unless the same bytes are there."""
        for folder in _names(name, generation):
            place = self.folder / folder
            if not os.path.lexists(place):
                self._rename(partial, place, manifest)
                return place
            there = _read_manifest(self._manifest_path(folder))
            if there and there.digest == manifest.digest and not problems(place, manifest):
                return place
        raise AssertionError("names do not end")

    def _rename(self, partial: Path, place: Path, manifest: Manifest) -> None:
        """The manifest first: a folder without one is not ours, a manifest without one is
        nothing."""
        strange = _strangers(partial, manifest)
        if strange:
            raise IntegrityError(
                f"{partial} holds {', '.join(strange[:3])}, which the manifest does not; nothing "
                "was published.",
                hint=f"remove {partial} and try again",
            )
        path = self._manifest_path(place.name)
        make_folder(path.parent, mode=0o755)
        write_whole(path, manifest.encode(), mode=0o644)
        partial.rename(place)
        sync_folder(place.parent)
        sync_folder(partial.parent)

    def _of(self, digest: str) -> list[Held]:
        return [each for each in self.held() if each.manifest.digest == digest]

    def _link_known(self, incoming: Path, manifest: Manifest) -> None:
        known = {
            (entry.size, entry.sha256): each.path / entry.path
            for each in self.held()
            for entry in each.manifest.files
        }
        linked: list[Chunk] = []
        shutil.rmtree(incoming)
        make_folder(incoming, mode=0o755)
        for entry in manifest.files:
            source = known.get((entry.size, entry.sha256))
            if entry.chunks and source and _link(source, incoming / entry.path, entry):
                linked += [(entry.path, index) for index in range(len(entry.chunks))]
        if linked:
            Journal(incoming).begin(manifest.digest, linked)

    def _manifest_path(self, folder: str) -> Path:
        return self._own / "manifests" / f"{folder}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        file = os.open(self._own / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def held(folder: Path) -> list[Held]:
    """The published checkpoints of a mirror folder, by name. A manifest that cannot be read
    counts for nothing: its folder is not known to be verified."""
    found = []
    for path in sorted((folder / ".gpujob" / "manifests").glob("*.json")):
        place, manifest = folder / path.stem, _read_manifest(path)
        if manifest is not None and place.is_dir() and not place.is_symlink():
            found.append(Held(place, manifest))
    return found


def verify(checkpoint: Held) -> list[str]:
    """Hash it again: a line for each file that is not what was verified; empty when intact."""
    return problems(checkpoint.path, checkpoint.manifest)


def copy_out(checkpoint: Held, dest: Path) -> bool:
    """Put a verified, writable copy at `dest` in one step; False when it is there already.

    Raises IntegrityError when the mirror's own copy is damaged, GpujobError when something else
    is at `dest`."""
    if os.path.lexists(dest):
        if not problems(dest, checkpoint.manifest):
            return False
        raise GpujobError(f"{dest} exists and holds something else; nothing was changed.")
    dest = dest.absolute()
    dest.parent.mkdir(parents=True, exist_ok=True)
    beside = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.partial")
    try:
        with disk_room(dest.parent, safe=f"The checkpoint is intact in {checkpoint.path}."):
            shutil.copytree(checkpoint.path, beside, copy_function=_copy_writable, symlinks=True)
        if wrong := problems(beside, checkpoint.manifest):
            raise IntegrityError(
                f"{checkpoint.path} is damaged: {wrong[0]}. Nothing was written to {dest}.",
                hint="gpujob checkpoints verify",
            )
        sync_folders(beside)
        beside.rename(dest)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sync_folder(dest.parent)
    return True


def _names(name: str, generation: int) -> Iterator[str]:
    """`checkpoint-10`, `checkpoint-10~2`, and on: a generation counts anew on a new box."""
    yield check_name(name)
    while True:
        yield f"{name}~{generation}"
        generation += 1


def _strangers(partial: Path, manifest: Manifest) -> list[str]:
    known = {entry.path for entry in manifest.files}
    paths = (path for path in partial.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted({path.relative_to(partial).as_posix() for path in paths} - known)


def _link(source: Path, target: Path, entry: FileEntry) -> bool:
    """Whether `target` is now the published file; the transfer hashes it before it trusts it."""
    with suppress(OSError):
        if source.is_symlink() or source.stat().st_size != entry.size:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(source)
        return True
    return False


def _copy_writable(source: str, target: str) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    Path(target).chmod(0o755 if os.access(source, os.X_OK) else 0o644, follow_symlinks=True)
    with Path(target).open("rb") as file:
        os.fsync(file.fileno())


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.decode(path.read_bytes())
    except (FileNotFoundError, ContractError):
        return None


def _incomplete(name: str, partial: Path) -> IntegrityError:
    return IntegrityError(
        f"Not every byte of {name} is verified in {partial}; nothing was published.",
        hint="gpujob watch fetches what is missing",
    )
