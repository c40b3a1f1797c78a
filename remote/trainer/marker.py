"""The exact completeness marker, and the wait until the agent has pinned what it names.

`docs/formats.md` §8. The marker is the last file of a checkpoint and is put there by a rename:
who sees it sees a checkpoint that nobody writes any more.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.contract import MARKER, PROTOCOL

PIN_TIMEOUT_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True)
class Pins:
    """The folder where the agent says what it has pinned; None without an agent."""

    folder: Path | None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def wait(self, name: str, nonce: str, *, timeout_s: float = PIN_TIMEOUT_S) -> bool:
        """Wait until `name` as marked with `nonce` is pinned. False when the time is over."""
        if self.folder is None:
            return True
        deadline = self.clock() + timeout_s
        while not (self.folder / f"{name}.{nonce}").exists():
            if self.clock() >= deadline:
                return False
            self.sleep(POLL_S)
        return True


def mark(folder: Path, name: str, *, step: int, world_size: int, subfolders: bool = True) -> str:
    """Write the marker of a folder that is written to no more; return its nonce.

    Lists regular files with their sizes; those in subfolders only if `subfolders`. Atomic and
    durable: a temporary file in the same folder, fsync, rename, fsync of the folder.
    """
    nonce = uuid.uuid4().hex
    record = {
        "v": PROTOCOL,
        "name": name,
        "step": step,
        "world_size": world_size,
        "nonce": nonce,
        "files": list(_files(folder, subfolders)),
    }
    temporary = folder / f".{MARKER}.{nonce}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MARKER)
    _fsync_folder(folder)
    return nonce


def unmark_after(output_dir: Path, step: int) -> None:
    """Remove the markers of what will be written again: `final` and checkpoints after `step`.

    A marker that outlives its bytes would vouch for a half-written folder of the same sizes.
    """
    (output_dir / MARKER).unlink(missing_ok=True)
    for folder in output_dir.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        if number.isdigit() and int(number) > step:
            (folder / MARKER).unlink(missing_ok=True)


def listed(folder: Path) -> list[str]:
    """The paths that the marker of `folder` names."""
    record = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    return [str(each["path"]) for each in record["files"]]


def _files(folder: Path, subfolders: bool) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*") if subfolders else folder.iterdir()):
        hidden_marker = path.name == MARKER or path.name.startswith(f".{MARKER}.")
        if path.is_file() and not path.is_symlink() and not hidden_marker:
            yield {"path": path.relative_to(folder).as_posix(), "size": path.stat().st_size}


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
