"""How much disk pins and seals occupy that the trainer's own files do not: what a link keeps costs
nothing until the trainer deletes its name."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Dict, Iterable, Iterator, Tuple

_BLOCK_BYTES = 512  # of st_blocks, whatever the file system


def held_bytes(folders: Iterable[Path]) -> int:
    """The bytes on disk of files that have no name outside `folders`. A clone counts whole."""
    ours: Dict[Tuple[int, int], Tuple[int, os.stat_result]] = {}
    for folder in folders:
        for found in _files(folder):
            key = found.st_dev, found.st_ino
            ours[key] = ours.get(key, (0, found))[0] + 1, found
    return sum(
        found.st_blocks * _BLOCK_BYTES for names, found in ours.values() if found.st_nlink <= names
    )


def _files(folder: Path) -> Iterator[os.stat_result]:
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(place, name))
                if stat.S_ISREG(found.st_mode):
                    yield found
