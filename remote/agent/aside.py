"""What is in the way is renamed and never deleted."""

from __future__ import annotations

from pathlib import Path

SUPERSEDED = "_superseded"


def set_aside(path: Path, folder: Path) -> None:
    """Move `path` into `folder` under its name, or the first that is free after it."""
    folder.mkdir(parents=True, exist_ok=True)
    target, count = folder / path.name, 1
    while target.exists() or target.is_symlink():
        count += 1
        target = folder / ("%s~%d" % (path.name, count))
    path.rename(target)
