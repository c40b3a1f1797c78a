"""Keeps a checkpoint's files out of the trainer's reach, from first sight on.

A hard link keeps the inode: what is still being written shows through it, and the trainer may
delete its own name whenever it likes. Where links fail, files are copied.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Set

from remote.agent.copies import Copies
from remote.agent.layouts import SENTINEL, STATE
from remote.agent.scan import Identity, Listing, list_tree

_NO_LINKS = (
    errno.EXDEV,
    errno.EPERM,
    errno.EIO,
    errno.EMLINK,
    errno.EACCES,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
)


class NoLinks(OSError):
    """Hard links do not work between the trainer's folder and ours."""


@dataclass
class Pin:
    """The files of checkpoint `name` in `folder`, each as the `Identity` of its source.

    `source` is what the trainer's folder held at the last look; `gone` when it is not there any
    more. `changed_at`, monotonic, is when anything was last seen to change."""

    name: str
    generation: int
    folder: Path
    copies: Copies
    changed_at: float
    files: Listing = field(default_factory=dict)
    source: Listing = field(default_factory=dict)
    copied: Set[str] = field(default_factory=set)
    gone: bool = False
    looks: int = 0  # at the same picture

    @staticmethod
    def open(pins: Path, name: str, generation: int, copies: Copies, now: float) -> Pin:
        """A new pin, or the one that an earlier supervisor left."""
        folder = pins / ("%s.%d" % (name, generation))
        folder.mkdir(parents=True, exist_ok=True)
        return Pin(name, generation, folder, copies, now, files=list_tree(folder))

    def update(self, source: Path, listing: Listing, now: float) -> None:
        """Take in one look at the trainer's folder. An empty listing means that it is gone."""
        before = dict(self.files)
        self.gone = not listing
        for path, identity in listing.items():
            self._hold(source / path, path, identity)
        if self.gone:
            self._look_at_links()
            self._await_copies()
        else:
            self._forget_renamed(listing)
        if listing != self.source or self.files != before:
            self.changed_at, self.looks = now, 0
        self.looks += 1
        self.source = listing

    @property
    def current(self) -> Listing:
        """The pinned files that are the checkpoint now: what the trainer removed while it still
        writes (a temporary file) is not part of it; once the folder is gone, all there was."""
        if self.gone:
            return dict(self.files)
        return {path: self.files[path] for path in self.source if path in self.files}

    @property
    def is_whole(self) -> bool:
        """Whether everything that the trainer's folder shows is held, as it is."""
        return not self.copies.pending(self.folder) and all(
            self.files.get(path) == identity for path, identity in self.source.items()
        )

    def _hold(self, source: Path, path: str, identity: Identity) -> None:
        held = self.files.get(path)
        if held == identity:
            return
        if held and held.same_inode(identity) and path not in self.copied:
            self.files[path] = identity
            return
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            linked = None if path in self.copied else _link(source, target)
        except NoLinks:
            self.copied.add(path)
            self.files.pop(path, None)
            linked = None
        if linked:
            self.files[path] = linked
        elif path in self.copied and self.copies.want(source, target, identity):
            self.files[path] = identity

    def _look_at_links(self) -> None:
        """Nobody can open a deleted file again, but who has it open may still write."""
        for path in self.files:
            if path not in self.copied:
                self.files[path] = Identity.of((self.folder / path).lstat())

    def _await_copies(self) -> None:
        for path in self.copied - set(self.files):
            done = self.copies.finished(self.folder / path)
            if done:
                self.files[path] = done

    def _forget_renamed(self, listing: Listing) -> None:
        """A name that is gone while its inode lives on under another was a temporary one."""
        absent = [path for path in self.files if path not in listing]
        inodes = {(identity.dev, identity.ino) for identity in listing.values()}
        for path in absent:
            identity = self.files[path]
            renamed = (identity.dev, identity.ino) in inodes
            if renamed or (path == SENTINEL and absent == [SENTINEL] and STATE in listing):
                (self.folder / path).unlink()
                del self.files[path]


def _link(source: Path, target: Path) -> Optional[Identity]:
    """Link and tell what was linked; None when the source is gone or is no regular file.

    Raises NoLinks when this file system cannot."""
    try:
        target.unlink(missing_ok=True)
        os.link(source, target, follow_symlinks=False)
        found = target.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise NoLinks(error.errno, "cannot link") from error
        raise
    if not stat.S_ISREG(found.st_mode):
        target.unlink()
        return None
    return Identity.of(found)
