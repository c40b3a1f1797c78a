"""Keeps a checkpoint's files out of the trainer's reach, from first sight on.

A hard link keeps the inode: what is still being written shows through it, and the trainer may
delete its own name whenever it likes. Where links fail, files are copied.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Collection, Dict, Optional, Set

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
_TEMPORARY = re.compile(r"\.(?:tmp|temp|lock|part|partial|incomplete)$")


class NoLinks(OSError):
    """Hard links do not work between the trainer's folder and ours."""


@dataclass
class Pin:
    """The files of checkpoint `name` in `folder`, each as the `Identity` of its source.

    `source` is what the trainer showed at the last look; `gone` when it shows nothing any more.
    `copied` are the files held as copies, with where the trainer has them in `origins`; `shared`
    those that other checkpoints hold too. `opened_at` and `changed_at`, when anything was last
    seen to change, are monotonic."""

    name: str
    generation: int
    folder: Path
    copies: Copies
    changed_at: float
    files: Listing = field(default_factory=dict)
    source: Listing = field(default_factory=dict)
    copied: Set[str] = field(default_factory=set)
    origins: Dict[str, Path] = field(default_factory=dict)
    shared: Set[str] = field(default_factory=set)
    opened_at: float = 0.0
    gone: bool = False
    looks: int = 0  # at the same picture

    @staticmethod
    def open(pins: Path, name: str, generation: int, copies: Copies, now: float) -> Pin:
        """A new pin, or the one that an earlier supervisor left."""
        folder = pins / ("%s.%d" % (name, generation))
        folder.mkdir(parents=True, exist_ok=True)
        return Pin(name, generation, folder, copies, now, list_tree(folder), opened_at=now)

    def update(
        self,
        locate: Callable[[str], Path],
        listing: Listing,
        now: float,
        *,
        copy: Collection[str] = (),
    ) -> None:
        """Take in one look at what the trainer has, file by file at `locate(path)`. An empty
        listing means that it is gone. What is in `copy` is not linked, for the trainer writes
        it again in place, unless there is no room."""
        before = dict(self.files)
        self.gone = not listing
        for path, identity in listing.items():
            is_ours = path in copy and not self._is_linked(path, identity)
            if is_ours and self.copies.fits(self.folder, identity):
                self.copied.add(path)
            self._hold(locate(path), path, identity)
        if not self.gone:
            self._forget_renamed(listing)
        self._look_at_links(listing)
        self._await_copies(listing)
        if listing != self.source or self.files != before:
            self.changed_at, self.looks = now, 0
        self.looks += 1
        self.source = listing

    @property
    def current(self) -> Listing:
        """The pinned files that are the checkpoint now. What the trainer deletes is held still,
        since it may be deleting all of it, one file after the other; but for temporary files."""
        return dict(self.files)

    @property
    def own(self) -> Listing:
        """What it was seen to hold, without the files that it shares with others."""
        found = {**self.files, **self.source}
        return {path: each for path, each in found.items() if path not in self.shared}

    @property
    def is_whole(self) -> bool:
        """Whether everything that the trainer's folder shows is held, as it is."""
        return not self.is_coming and all(
            self.files.get(path) == identity for path, identity in self.source.items()
        )

    @property
    def is_coming(self) -> bool:
        """Whether a copy is being made."""
        return self.copies.pending(self.folder)

    def _hold(self, source: Path, path: str, identity: Identity) -> None:
        held, target = self.files.get(path), self.folder / path
        if held == identity:
            return
        if held and _is_copy(target, held, identity):
            self.copied.add(path)
            self.files[path] = identity
            return
        if self._is_linked(path, identity) and path not in self.copied:
            self.files[path] = identity
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            linked = None if path in self.copied else _link(source, target, self.copies.spare)
        except NoLinks:
            self.copied.add(path)
            linked = None
        if linked:
            self.files[path] = linked
        elif path in self.copied:
            self.origins[path] = source
            if self.copies.want(source, target, identity):
                self.files[path] = identity

    def _is_linked(self, path: str, identity: Identity) -> bool:
        held = self.files.get(path)
        return held is not None and held.same_inode(identity)

    def _look_at_links(self, listing: Listing) -> None:
        """Nobody can open a deleted file again, but who has it open may still write, or have
        written since the last look."""
        for path in self.files:
            if path not in self.copied and path not in listing:
                self.files[path] = Identity.of((self.folder / path).lstat())

    def _await_copies(self, listing: Listing) -> None:
        """Of deleted files: the last copy of one may have been under way."""
        for path in self.copied - set(listing):
            done = self.copies.finished(self.folder / path)
            if done:
                self.files[path] = done

    def _forget_renamed(self, listing: Listing) -> None:
        """A name that is gone while its inode lives on under another was a temporary one; others
        say it of themselves."""
        absent = [path for path in self.files if path not in listing]
        inodes = {(identity.dev, identity.ino) for identity in listing.values()}
        for path in absent:
            identity = self.files[path]
            renamed = (identity.dev, identity.ino) in inodes or _TEMPORARY.search(path)
            if renamed or (path == SENTINEL and absent == [SENTINEL] and STATE in listing):
                (self.folder / path).unlink()
                del self.files[path]


def _is_copy(target: Path, held: Identity, identity: Identity) -> bool:
    """Whether what an earlier supervisor left is a finished copy of this: a file of our own, with
    the size and the time of its source (`copies.py` sees to that)."""
    alike = (held.size, held.mtime_ns) == (identity.size, identity.mtime_ns)
    if not alike or held.same_inode(identity):
        return False
    found = target.lstat()
    return Identity.of(found) == held and found.st_nlink == 1


def _link(source: Path, target: Path, spare: Callable[[], Path]) -> Optional[Identity]:
    """Link and tell what was linked; None when the source is gone or is no regular file.

    Raises NoLinks when this file system cannot; then what is at `target` is still there."""
    try:
        _make_link(source, target, spare)
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


def _make_link(source: Path, target: Path, spare: Callable[[], Path]) -> None:
    """By one rename where something is in the way: nothing of it goes before the link is made."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        between = spare()
        os.link(source, between, follow_symlinks=False)
        between.replace(target)
        between.unlink(missing_ok=True)  # a rename onto the same inode does nothing
