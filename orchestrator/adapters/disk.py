"""What a disk here can hold: how much, and whether it tells names apart."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MOST_SPARED_BYTES = 2**30
SPARED_SHARE = 0.02
UNTOLD_BYTES = 2**62


@dataclass(frozen=True)
class Space:
    """`free_bytes` may be used by us, of `total_bytes`."""

    free_bytes: int
    total_bytes: int

    @property
    def usable_bytes(self) -> int:
        """Some room is left for everything else that lives on the disk."""
        spared = min(MOST_SPARED_BYTES, int(self.total_bytes * SPARED_SHARE))
        return max(0, self.free_bytes - spared)


class Disk:
    """Asks the operating system. Raises OSError."""

    def space(self, folder: Path) -> Space:
        found = os.statvfs(folder)
        if not found.f_blocks:  # some FUSE file systems do not tell; that is not full
            return Space(UNTOLD_BYTES, UNTOLD_BYTES)
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    def is_case_blind(self, folder: Path) -> bool:
        """Whether `A` and `a` are one file there. `folder` has a lower-case folder `.gpujob`."""
        return os.path.lexists(folder / ".GPUJOB")


def collisions(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of paths, their folders too, that are one on a disk that is blind to case or to the
    way an accent is written."""
    seen: dict[str, str] = {}
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(paths):
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            before = seen.setdefault(_folded(name), name)
            if before != name:
                found.setdefault(_folded(name), (before, name))
    return list(found.values())


def nearest_folder(path: Path) -> Path:
    """The path, or the first folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def taken_bytes(folder: Path) -> int:
    """What the files below `folder` take on the disk."""
    total = 0
    for place, _, names in os.walk(folder):
        total += sum(os.lstat(Path(place) / name).st_blocks * 512 for name in names)
    return total


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
