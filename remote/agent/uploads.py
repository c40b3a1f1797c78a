"""Trees on their way up: staged by chunks, resumable after any break, put in place when whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Dict, List, Set, Tuple

from remote.agent.replies import Refusal
from remote.agent.scan import Identity
from remote.agent.trees import (
    check_inside,
    holds_exactly,
    matches,
    place_file,
    place_folder,
    resolve,
    staging_beside,
    sync_folders,
)
from remote.contract import CHUNK_BYTES, ContractError, FileEntry, Manifest

MODES = ("merge", "folder")
Need = List[Tuple[str, int]]


class Uploads:
    """The uploads that one connection offered. What was staged outlives the connection."""

    def __init__(self, incoming: Path) -> None:
        self._incoming = incoming
        self._offered: Dict[str, Upload] = {}

    def offer(self, dest: str, mode: str, manifest: bytes) -> Tuple[str, Need]:
        """The upload's name, and the chunks that are neither in place nor staged."""
        if mode not in MODES:
            raise ContractError("not a mode: %r" % mode)
        tree = Manifest.decode(manifest)
        upload = Upload(self._incoming / tree.digest, resolve(dest), mode, tree)
        need = upload.prepare()
        self._offered[tree.digest] = upload
        return tree.digest, need

    def write(self, name: str, path: str, chunk: int, data: bytes) -> None:
        self._of(name).write(path, chunk, data)

    def commit(self, name: str) -> str:
        """Put the tree in place; its digest."""
        upload = self._of(name)
        upload.commit()
        del self._offered[name]
        return name

    def _of(self, name: str) -> Upload:
        upload = self._offered.get(name)
        if upload is None:
            raise Refusal("not_found", "no such upload was offered here; offer it again")
        return upload


class Upload:
    """One tree for one destination. `folder/tree` holds what came, `folder/journal` which chunks
    were verified when they came, one line each."""

    def __init__(self, folder: Path, dest: Path, mode: str, manifest: Manifest) -> None:
        self._folder = folder
        self._dest = dest
        self._mode = mode
        self._manifest = manifest
        self._entries = {entry.path: entry for entry in manifest.files}
        self._held: Dict[str, Identity] = {}
        self._staged: Set[Tuple[str, int]] = set()
        self._is_there = False
        _check_tree(self._entries)

    def prepare(self) -> Need:
        """Look at what is there; the chunks that are missing, in order. Raises Refusal."""
        if self._mode == "folder":
            self._is_there = holds_exactly(self._dest, self._manifest)
        else:
            self._compare()
        self._staged = self._journaled()
        wanted = [] if self._is_there else self._missing_files()
        need = [
            (entry.path, index)
            for entry in wanted
            for index in range(len(entry.chunks))
            if (entry.path, index) not in self._staged
        ]
        self._check_room(need)
        return need

    def write(self, path: str, chunk: int, data: bytes) -> None:
        """Stage one chunk. Raises Refusal when it is not the one that was offered."""
        entry = self._entries.get(path)
        if entry is None or chunk >= len(entry.chunks):
            raise Refusal("refused", "chunk %d of %r was not offered" % (chunk, path))
        if hashlib.sha256(data).hexdigest() != entry.chunks[chunk]:
            raise Refusal("changed", "chunk %d of %r is not what was offered" % (chunk, path))
        target = self._tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            _write_at(file, data, chunk * CHUNK_BYTES)
        finally:
            os.close(file)
        with (self._folder / "journal").open("ab") as journal:
            journal.write(b"%d %s\n" % (chunk, os.fsencode(path)))
        self._staged.add((path, chunk))

    def commit(self) -> None:
        """Verify every file and put it in place, durably. Raises Refusal; then nothing wrong is
        in place, and offering again tells what to send."""
        if self._is_there and holds_exactly(self._dest, self._manifest):
            return
        wanted = self._missing_files()
        for entry in wanted:
            self._verify(entry)
        self._check_held()
        if self._mode == "folder":
            self._place_folder()
        else:
            self._merge(wanted)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _tree(self) -> Path:
        return self._folder / "tree"

    def _compare(self) -> None:
        for entry in self._manifest.files:
            target = self._dest / entry.path
            check_inside(self._dest, target)
            if matches(target, entry):
                self._held[entry.path] = Identity.of(target.lstat())

    def _missing_files(self) -> List[FileEntry]:
        return [entry for entry in self._manifest.files if entry.path not in self._held]

    def _journaled(self) -> Set[Tuple[str, int]]:
        """Chunks that came and are there. A torn last line counts for nothing."""
        try:
            lines = (self._folder / "journal").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return set()
        pairs = [line.partition(b" ") for line in lines]
        staged = {(os.fsdecode(path), int(chunk)) for chunk, _, path in pairs if chunk.isdigit()}
        return {(path, chunk) for path, chunk in staged if self._reaches(path, chunk)}

    def _reaches(self, path: str, chunk: int) -> bool:
        entry = self._entries.get(path)
        if entry is None or chunk >= len(entry.chunks):
            return False
        try:
            size = (self._tree / path).stat().st_size
        except FileNotFoundError:
            return False
        return size >= min(entry.size, (chunk + 1) * CHUNK_BYTES)

    def _check_room(self, need: Need) -> None:
        size = sum(min(CHUNK_BYTES, self._entries[path].size) for path, _ in need)
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if size > free:
            raise Refusal("no_space", "%d bytes to come, %d free" % (size, free))

    def _verify(self, entry: FileEntry) -> None:
        path = self._tree / entry.path
        if not entry.chunks:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        if not matches(path, entry):
            path.unlink(missing_ok=True)
            raise Refusal("changed", "%r did not come whole; offer it again" % entry.path)

    def _check_held(self) -> None:
        for path, identity in self._held.items():
            target = self._dest / path
            if not target.exists() or Identity.of(target.lstat()) != identity:
                raise Refusal("changed", "%r changed since the offer; offer it again" % path)

    def _merge(self, wanted: List[FileEntry]) -> None:
        self._dest.mkdir(parents=True, exist_ok=True)
        for entry in wanted:
            place_file(self._tree / entry.path, self._dest, entry)
        for path in self._held:
            mode = 0o755 if self._entries[path].executable else 0o644
            (self._dest / path).chmod(mode)
        sync_folders(self._dest, {(self._dest / entry.path).parent for entry in wanted})

    def _place_folder(self) -> None:
        staged = staging_beside(self._dest, self._manifest.digest)
        try:
            for entry in self._manifest.files:
                place_file(self._tree / entry.path, staged, entry)
            place_folder(staged, self._dest)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _check_tree(entries: Dict[str, FileEntry]) -> None:
    """A name cannot be a file and a folder at once."""
    for path in entries:
        parts = path.split("/")
        for count in range(1, len(parts)):
            if "/".join(parts[:count]) in entries:
                raise ContractError("the manifest has a file inside the file of %r" % path)


def _write_at(file: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written
