"""The port Mirror as a folder: `checkpoint-10/`, `final/`, and what is kept about them in
`.gpujob/` (docs/formats.md §4)."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.adapters.check import is_whole
from orchestrator.adapters.disk import Disk, collisions, taken_bytes
from orchestrator.adapters.durable import (
    blocked,
    disk_room,
    make_folder,
    sync_folder,
    write_whole,
)
from orchestrator.adapters.incoming import Incoming, remove_strangers
from orchestrator.adapters.journal import Journal
from orchestrator.adapters.published import Held, Print, fingerprint, held, read_manifest
from orchestrator.adapters.stamp import Stamp, require_stamp
from orchestrator.errors import IntegrityError, NotFound
from remote.contract import Manifest, check_name

SAFE = "Nothing is lost: the box keeps the checkpoint until it is held here."


class FolderMirror:
    """One run's checkpoints below `folder`, which was stamped with the run at launch. Without
    the stamp the folder is another: its disk is not mounted, and nothing is put or missed there.
    """

    def __init__(self, folder: Path, run: str, ledger: str, disk: Disk | None = None) -> None:
        self.folder = folder
        self._stamp = Stamp(run, ledger)
        self._own = folder / ".gpujob"
        self._incoming = Incoming(self._own / "incoming", safe=SAFE)
        self._disk = disk or Disk()
        self._sure: dict[Path, Print] = {}

    def holds(self, digest: str) -> Path | None:
        """Every byte of it was read, now or when it was published a moment ago and nothing of it
        has changed since: a caller may let the box forget its copy."""
        self._require()
        return self._intact(digest)

    def manifest(self, digest: str) -> Manifest:
        self._require()
        for each in self._of(digest):
            return each.manifest
        raise NotFound(f"{self.folder} holds no checkpoint with the digest {digest[:12]}.")

    def digests(self) -> frozenset[str]:
        self._require()
        return frozenset(each.manifest.digest for each in self.held())

    def room(self, digest: str = "", size_bytes: int = 0) -> int:
        """Writes a small file to know. A part of the checkpoint may be here already."""
        self._require()
        with disk_room(self.folder, safe=SAFE):
            probe = self._own / f".room.{secrets.token_hex(4)}"
            write_whole(probe, b"x")
            probe.unlink()
            return self._reserve(self._incoming.place(digest) if digest else None, size_bytes)

    @contextmanager
    def partial(self, manifest: Manifest) -> Iterator[Path]:
        self._require()
        place = self._incoming.place(manifest.digest)
        with self._incoming.alone(place):
            with disk_room(self.folder, safe=SAFE):
                self._check_names(manifest)
                self._incoming.begin(manifest, self.held())
                self._reserve(place, manifest.size_bytes)
            yield place

    def sweep(self, wanted: Collection[str]) -> None:
        self._require()
        with disk_room(self.folder, safe=SAFE):
            self._incoming.sweep(wanted)

    def publish(self, name: str, generation: int, manifest: Manifest) -> Path:
        self._require()
        partial = self._incoming.place(manifest.digest)
        journal = Journal(partial)
        with disk_room(self.folder, safe=SAFE), self._locked():
            if not journal.is_complete(manifest.digest):
                if (there := self._intact(manifest.digest)) is None:
                    raise _incomplete(name, partial)
                place = there
            else:
                place = self._place(name, generation, manifest, partial)
            shutil.rmtree(partial, ignore_errors=True)
            journal.remove()
            return place

    def prune(self, digest: str) -> None:
        """First one rename out of sight, then the bytes: no name ever shows a part of it."""
        self._require()
        with disk_room(self.folder, safe="What is published here is unharmed."), self._locked():
            trash = self._own / "trash"
            make_folder(trash, mode=0o755)
            for each in self._of(digest):
                each.path.rename(trash / f"{each.path.name}.{secrets.token_hex(4)}")
                sync_folder(self.folder)
                self._manifest_path(each.path.name).unlink(missing_ok=True)
            for left in trash.iterdir():
                shutil.rmtree(left)

    def held(self) -> list[Held]:
        return held(self.folder)

    def _require(self) -> None:
        require_stamp(self.folder, self._stamp, safe=SAFE)

    def _intact(self, digest: str) -> Path | None:
        for each in self._of(digest):
            look = fingerprint(each)
            # Vouched for once: what lay here for longer is read, since a disk may rot in silence.
            if look and self._sure.pop(each.path, None) == look:
                return each.path
            if look and is_whole(each.path, each.manifest):
                self._sure[each.path] = look
                return each.path
        return None

    def _place(self, name: str, generation: int, manifest: Manifest, partial: Path) -> Path:
        """Rename the tree to the first name that is free, unless the same bytes are there."""
        for folder in _names(name, generation):
            place = self.folder / folder
            if not os.path.lexists(place):
                self._rename(partial, place, manifest)
                return place
            there = read_manifest(self._manifest_path(folder))
            if there and there.digest == manifest.digest and is_whole(place, manifest):
                return place
        raise AssertionError("names do not end")

    def _rename(self, partial: Path, place: Path, manifest: Manifest) -> None:
        """The manifest first: a folder without one is not ours, a manifest without one is
        nothing."""
        remove_strangers(partial, manifest)
        # The transfer read every byte of it a moment ago; what changes from now on shows.
        look = fingerprint(Held(partial, manifest))
        if look is None:
            raise _incomplete(place.name, partial)
        path = self._manifest_path(place.name)
        make_folder(path.parent, mode=0o755)
        write_whole(path, manifest.encode(), mode=0o644)
        partial.rename(place)
        sync_folder(place.parent)
        sync_folder(partial.parent)
        self._sure[place] = look

    def _of(self, digest: str) -> list[Held]:
        return [each for each in self.held() if each.manifest.digest == digest]

    def _check_names(self, manifest: Manifest) -> None:
        """Two files that are one on this disk: the second would overwrite the first."""
        if not self._disk.is_case_blind(self.folder):
            return
        pairs = collisions(entry.path for entry in manifest.files)
        if pairs:
            (first, second), *more = pairs
            raise IntegrityError(
                f"{first!r} and {second!r}{f' and {len(more)} more pairs' if more else ''} are one"
                f" name on the disk of {self.folder}, so this checkpoint cannot be held here: the"
                " only copy is on its box, and goes with it. What is published here is unharmed.",
                hint="launch with checkpoints.mirror on a disk that tells upper from lower case,"
                " or with checkpoints.also",
            )

    def _reserve(self, incoming: Path | None, size_bytes: int) -> int:
        """The room that is left. What a full disk refuses is refused before it is begun."""
        space = self._disk.space(self.folder)
        there = taken_bytes(incoming) if incoming else 0
        if size_bytes and size_bytes - there > space.usable_bytes:
            raise blocked(self.folder, "full", safe=SAFE)
        return space.free_bytes

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


def _names(name: str, generation: int) -> Iterator[str]:
    """`checkpoint-10`, `checkpoint-10~2`, and on: a generation counts anew on a new box."""
    yield check_name(name)
    while True:
        yield f"{name}~{generation}"
        generation += 1


def _incomplete(name: str, partial: Path) -> IntegrityError:
    return IntegrityError(
        f"Not every byte of {name} is verified in {partial}; nothing was published.",
        hint="gpujob watch fetches what is missing",
    )
