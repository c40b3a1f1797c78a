"""What a mirror folder holds: published checkpoints, each with the manifest it was verified
against."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from orchestrator.adapters.check import contradictions
from orchestrator.ports import Held
from remote.contract import ContractError, Manifest

Print = tuple[tuple[str, int, int, int], ...]


def held(folder: Path) -> list[Held]:
    """The published checkpoints of a mirror folder, by name. A manifest that cannot be read
    counts for nothing: its folder is not known to be verified."""
    found = []
    for path in sorted((folder / ".gpujob" / "manifests").glob("*.json")):
        place, manifest = folder / path.stem, read_manifest(path)
        if manifest is not None and place.is_dir() and not place.is_symlink():
            found.append(Held(place, manifest))
    return found


def verify(checkpoint: Held, told: Callable[[int], None] = lambda size_bytes: None) -> list[str]:
    """Hash it again: a line for each file that is not what was verified, or whose manifest lies of
    the whole of it; empty when intact."""
    return contradictions(checkpoint.path, checkpoint.manifest, told)


def read_manifest(path: Path) -> Manifest | None:
    """None when it is missing or is none."""
    try:
        found = path.stat()
        return _decode(path, found.st_mtime_ns, found.st_size, found.st_ino)
    except (FileNotFoundError, ContractError):
        return None


def fingerprint(checkpoint: Held) -> Print | None:
    """How the files look without reading them: one that differs has to be hashed again. None
    when one is missing."""
    looks = []
    try:
        for entry in checkpoint.manifest.files:
            found = os.lstat(checkpoint.path / entry.path)
            looks.append((entry.path, found.st_size, found.st_mtime_ns, found.st_ino))
    except OSError:
        return None
    return tuple(looks)


@lru_cache(maxsize=256)
def _decode(path: Path, _mtime_ns: int, _size: int, _inode: int) -> Manifest:
    """A manifest of 100 GB is half a megabyte of digests: parsed once while it stays as it is."""
    return Manifest.decode(path.read_bytes())


__all__ = ["Held", "Print", "fingerprint", "held", "read_manifest", "verify"]
