"""Trees on their way up: offered, gathered by ranges from several connections, put in place when
whole; what was gathered outlives any break."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Dict, List, Tuple

from remote.agent.elsewhere import LEAST_BYTES, Elsewhere
from remote.agent.locks import locked
from remote.agent.paths import Root
from remote.agent.ranges import Part
from remote.agent.replies import Refusal
from remote.agent.scan import Identity
from remote.agent.staging import Range, Staging
from remote.agent.trees import (
    check_inside,
    holds_exactly,
    keep_only,
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
_DIGEST = re.compile(r"^[0-9a-f]{64}\Z")


class Uploads:
    """The uploads of this box. The connection that offered one commits it; any may write."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._offered: Dict[str, Upload] = {}
        self._staged: Dict[str, Staging] = {}

    def offer(self, dest: str, mode: str, manifest: bytes) -> Dict[str, Any]:
        """The upload's name, the chunks that are neither in place nor staged, and what of those
        is staged."""
        if mode not in MODES:
            raise ContractError("not a mode: %r" % mode)
        tree = Manifest.decode(manifest)
        upload = Upload(self._root, resolve(dest), mode, tree)
        need, have = upload.prepare()
        self._offered[tree.digest] = upload
        self._staged[tree.digest] = upload.staging
        return {"upload": tree.digest, "need": need, "have": have}

    def write(self, name: str, parts: List[Part], data: bytes) -> None:
        staging = self._staged.get(name) or self._load(name)
        staging.put(parts, data)

    def commit(self, name: str) -> str:
        """Put the tree in place; its digest."""
        upload = self._offered.get(name)
        if upload is None:
            raise Refusal("not_found", "no such upload was offered here; offer it again")
        upload.commit()
        del self._offered[name]
        return name

    def _load(self, name: str) -> Staging:
        found = Staging.load(self._root.incoming / name) if _DIGEST.match(name) else None
        if found is None:
            raise Refusal("not_found", "no such upload was offered; offer it again")
        self._staged[name] = found
        return found


class Upload:
    """One tree for one destination."""

    def __init__(self, root: Root, dest: Path, mode: str, manifest: Manifest) -> None:
        self.staging = Staging(root.incoming / manifest.digest, manifest)
        self._root = root
        self._dest = dest
        self._mode = mode
        self._manifest = manifest
        self._entries = {entry.path: entry for entry in manifest.files}
        self._held: Dict[str, Identity] = {}
        self._is_there = False
        _check_tree(self._entries)

    def prepare(self) -> Tuple[Need, List[List[Any]]]:
        """Look at what is there; the chunks that are missing, in order, and the ranges of them
        that came before. Raises Refusal."""
        if self._mode == "folder":
            self._is_there = holds_exactly(self._dest, self._manifest)
        else:
            self._compare()
        wanted = [] if self._is_there else self._missing_files()
        self.staging.begin()
        staged = self.staging.ranges()
        if self._copy_known(wanted, staged):
            staged = self.staging.ranges()
        need = [
            (entry.path, index)
            for entry in wanted
            for index in range(len(entry.chunks))
            if staged.get((entry.path, index)) != [(0, _size(entry, index))]
        ]
        have = [
            [path, index * CHUNK_BYTES + low, high - low]
            for path, index in need
            for low, high in staged.get((path, index), ())
        ]
        self._check_room(need, have)
        return need, have

    def commit(self) -> None:
        """Verify every file and put it in place, durably. Raises Refusal; then nothing wrong is
        in place, and its `need` tells what to send again."""
        if self._is_there and holds_exactly(self._dest, self._manifest):
            self.staging.remove()
            return
        wanted = self._missing_files()
        self._verify(wanted)
        self._check_held()
        if self._mode == "folder":
            self._place_folder()
        else:
            self._merge(wanted)
        self.staging.remove()

    def _compare(self) -> None:
        for entry in self._manifest.files:
            target = self._dest / entry.path
            check_inside(self._dest, target)
            if matches(target, entry):
                self._held[entry.path] = Identity.of(target.lstat())

    def _missing_files(self) -> List[FileEntry]:
        return [entry for entry in self._manifest.files if entry.path not in self._held]

    def _copy_known(
        self, wanted: List[FileEntry], staged: Dict[Tuple[str, int], List[Range]]
    ) -> bool:
        """Take from elsewhere on this box what nothing has come of; whether there was any."""
        fresh = [e for e in wanted if e.size >= LEAST_BYTES and (e.path, 0) not in staged]
        if not fresh:
            return False
        elsewhere, copied = Elsewhere(self._root, self.staging.folder), False
        for entry in fresh:
            if elsewhere.copy(entry, self.staging.tree / entry.path):
                (self.staging.tree / entry.path).chmod(0o600)
                self.staging.adopt(entry)
                copied = True
        return copied

    def _check_room(self, need: Need, have: List[List[Any]]) -> None:
        size = sum(_size(self._entries[path], index) for path, index in need)
        size -= sum(length for _, _, length in have)
        free = shutil.disk_usage(self.staging.folder).free
        if size > free:
            raise Refusal("no_space", "%d bytes to come, %d free" % (size, free))

    def _verify(self, wanted: List[FileEntry]) -> None:
        wrong = self.staging.wrong(wanted)
        if wrong:
            path, index = wrong[0]
            message = "chunk %d of %r did not come whole" % (index, path)
            raise Refusal("changed", message, need=wrong)
        for entry in wanted:
            if not entry.chunks:
                empty = self.staging.tree / entry.path
                empty.parent.mkdir(parents=True, exist_ok=True)
                empty.write_bytes(b"")

    def _check_held(self) -> None:
        for path, identity in self._held.items():
            target = self._dest / path
            if not target.exists() or Identity.of(target.lstat()) != identity:
                raise Refusal("changed", "%r changed since the offer; offer it again" % path)

    def _merge(self, wanted: List[FileEntry]) -> None:
        self._dest.mkdir(parents=True, exist_ok=True)
        for entry in wanted:
            place_file(self.staging.tree / entry.path, self._dest, entry)
        for path in self._held:
            mode = 0o755 if self._entries[path].executable else 0o644
            (self._dest / path).chmod(mode)
        sync_folders(self._dest, {(self._dest / entry.path).parent for entry in wanted})

    def _place_folder(self) -> None:
        with locked(self._root.restore_lock) as mine:
            if not mine:
                raise Refusal("io", "another checkpoint is being put in its place here")
            staged = staging_beside(self._dest, self._manifest.digest)
            try:
                for entry in self._manifest.files:
                    place_file(self.staging.tree / entry.path, staged, entry)
                keep_only(staged, self._manifest)
                place_folder(staged, self._dest)
            finally:
                shutil.rmtree(staged, ignore_errors=True)


def _size(entry: FileEntry, index: int) -> int:
    return min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES)


def _check_tree(entries: Dict[str, FileEntry]) -> None:
    """A name cannot be a file and a folder at once."""
    for path in entries:
        parts = path.split("/")
        for count in range(1, len(parts)):
            if "/".join(parts[:count]) in entries:
                raise ContractError("the manifest has a file inside the file of %r" % path)
