"""Whether a folder holds exactly the tree of a manifest, byte for byte."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from remote.contract import FileEntry, Manifest


def problems(root: Path, manifest: Manifest) -> list[str]:
    """One line for each file that is missing, too many, no regular file or of other bytes."""
    entries = {entry.path: entry for entry in manifest.files}
    there = set(_paths(root))
    found = [f"{path}: not in the manifest" for path in sorted(there - entries.keys())]
    for path, entry in sorted(entries.items()):
        if wrong := _wrong(root, entry):
            found.append(f"{path}: {wrong}")
    return found


def _paths(root: Path) -> list[str]:
    names: list[str] = []
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        names += [(Path(folder) / name).relative_to(root).as_posix() for name in files + links]
    return names


def _wrong(root: Path, entry: FileEntry) -> str:
    try:
        file = os.open(root / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    with os.fdopen(file, "rb") as stream:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return "not a regular file"
        if found.st_size != entry.size:
            return f"{found.st_size} bytes instead of {entry.size}"
        same = hashlib.file_digest(stream, "sha256").hexdigest() == entry.sha256
        return "" if same else "other bytes than were verified"
