"""What might be checkpoints below the checkpoint folder: by name, with their files as they are now.

The one notion that pins, seals and relaunches work with, whatever the trainer writes: a folder,
a single file, or files that belong together."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from remote.agent.aside import SUPERSEDED
from remote.agent.layouts.model import ANY, FILE, FOLDER, GROUP, Layout
from remote.agent.scan import Identity, Listing, left_behind, list_tree
from remote.contract import MAX_FILES, ContractError, check_name

FINAL = "final"
MAX_CANDIDATES = 10_000
_PEEK = 1000  # entries of a folder that are looked at for a sign of what it is


@dataclass
class Candidate:
    """`root` holds its files: its own folder, or the checkpoint folder with `names` in it."""

    name: str
    layout: Layout
    root: Path
    beside: Path
    names: Optional[List[str]] = None
    is_newest: bool = field(default=False, compare=False)

    @property
    def step(self) -> Optional[int]:
        return self.layout.step_of(self.name)

    @property
    def entries(self) -> List[Path]:
        """What has to be moved to move the checkpoint; what it shares with others stays."""
        return [self.root] if self.names is None else [self.root / name for name in self.names]

    def own(self) -> Listing:
        """Its files now; empty when it is gone. Raises ContractError when there are too many."""
        if self.names is None:
            return list_tree(self.root)
        return _present(self.root, self.names)

    def shared(self, own: Listing) -> Listing:
        """Files beside it that belong to it too, as they are now."""
        if not own or (self.layout.kind == ANY and self.names is None):
            return {}
        found = _present(self.beside, self.layout.shared)
        written = max(identity.mtime_ns for identity in own.values())
        return {
            path: identity
            for path, identity in found.items()
            if path not in self.layout.rewritten
            or (self.is_newest and identity.mtime_ns >= written)
        }

    def locate(self, path: str) -> Path:
        """Where the trainer has the file."""
        place = self.root / path
        return self.beside / path if path in self.layout.shared and not place.exists() else place

    def left_behind(self) -> Dict[str, str]:
        """What is in it and cannot be part of a checkpoint, and what that is."""
        return left_behind(self.root) if self.names is None else {}


@dataclass(frozen=True)
class Found:
    """`candidates` by name, oldest first; `refused` are names that no checkpoint may have."""

    candidates: Dict[str, Candidate]
    refused: Tuple[str, ...] = ()

    @property
    def newest(self) -> Optional[int]:
        """The highest step that has begun to be saved."""
        steps = [each.step for each in self.candidates.values() if each.step is not None]
        return max(steps, default=None)


def find(layouts: Tuple[Layout, ...], path: Path) -> Found:
    """Nothing when `path` is not there. An entry belongs to the first layout that it fits.

    Raises ContractError when there are too many to be checkpoints."""
    found: Dict[str, Candidate] = {}
    refused: List[str] = []
    for folder, below in _folders(layouts, path):
        for entry in _scan(folder):
            layout = _layout_of(entry, below)
            if layout is None:
                continue
            name = layout.match(entry.name) or entry.name
            if not _may_be_named(name) or not _add(found, name, layout, entry, path):
                refused.append(entry.name)
            if len(found) > MAX_CANDIDATES:
                raise ContractError("there are more than %d checkpoints" % MAX_CANDIDATES)
    ordered = sorted(found.values(), key=lambda each: (each.step or 0, each.name))
    for each in ordered[-1:]:
        each.is_newest = True
    return Found({each.name: each for each in ordered}, tuple(sorted(refused)))


def staged(layouts: Tuple[Layout, ...], path: Path) -> List[Path]:
    """What a trainer that was killed had not renamed yet."""
    patterns = [layout.staging for layout in layouts if layout.staging]
    names = [entry.name for entry in _scan(path)]
    return [path / each for each in names if any(re.search(one, each) for one in patterns)]


def _folders(layouts: Tuple[Layout, ...], path: Path) -> Iterator[Tuple[Path, Tuple[Layout, ...]]]:
    """Where to look, and for what."""
    near = tuple(layout for layout in layouts if not layout.below)
    if near:
        yield path, near
    for layout in layouts:
        for folder in _globbed(path, layout.below) if layout.below else ():
            yield folder, (layout,)


def _globbed(path: Path, globs: Tuple[str, ...]) -> Iterable[Path]:
    if not globs:
        return [path]
    below = [
        path / entry.name
        for entry in _scan(path)
        if fnmatch.fnmatchcase(entry.name, globs[0]) and entry.is_dir(follow_symlinks=False)
    ]
    return [found for folder in below for found in _globbed(folder, globs[1:])]


def _layout_of(entry: "os.DirEntry[str]", layouts: Tuple[Layout, ...]) -> Optional[Layout]:
    """By name first: what a folder holds is looked at only when no name fits."""
    is_folder = entry.is_dir(follow_symlinks=False)
    is_file = entry.is_file(follow_symlinks=False)
    kinds = (FOLDER, ANY) if is_folder else (FILE, GROUP, ANY) if is_file else ()
    for layout in layouts:
        if layout.kind in kinds and layout.match(entry.name) is not None:
            return layout
    signed = [layout for layout in layouts if layout.sign and is_folder]
    if not signed or entry.name.startswith((".", "_")):
        return None
    names = [each.name for each in islice(_scan(Path(entry.path)), _PEEK)]
    return next((each for each in signed if _shows(each.sign or "", names)), None)


def _shows(sign: str, names: List[str]) -> bool:
    return any(re.search(sign, name) for name in names)


def _add(
    found: Dict[str, Candidate], name: str, layout: Layout, entry: "os.DirEntry[str]", path: Path
) -> bool:
    """False when another checkpoint has the name."""
    known = found.get(name)
    if known is not None:
        if layout.kind != GROUP or known.names is None:
            return False
        known.names.append(entry.name)
    elif entry.is_dir(follow_symlinks=False):
        found[name] = Candidate(name, layout, Path(entry.path), path)
    else:
        folder = Path(entry.path).parent
        found[name] = Candidate(name, layout, folder, folder, [entry.name])
    return True


def _present(folder: Path, names: Iterable[str]) -> Listing:
    listing: Listing = {}
    for name in names:
        try:
            status = (folder / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISREG(status.st_mode):
            listing[name] = Identity.of(status)
    return listing


def _may_be_named(name: str) -> bool:
    try:
        return check_name(name) not in (FINAL, SUPERSEDED)
    except ContractError:
        return False


def _scan(folder: Path) -> List["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            found = list(islice(entries, MAX_FILES + 1))
    except (FileNotFoundError, NotADirectoryError):
        return []
    if len(found) > MAX_FILES:
        raise ContractError("%s holds more than %d entries" % (folder.name, MAX_FILES))
    return found
