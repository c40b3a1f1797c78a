"""A seal: a checkpoint found complete, hashed, and kept out of the trainer's reach."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from remote.agent.durable import fsync_folder, read_json
from remote.agent.scan import Listing, from_json
from remote.contract import ContractError, Manifest


@dataclass(frozen=True)
class Seal:
    """A checkpoint found complete: `folder/tree` holds it as `manifest` says, until `forgotten`.
    `tree` is how its files look while nobody touched them."""

    folder: Path
    manifest: Manifest
    tree: Dict[str, Tuple[int, int]]
    known: Listing
    max_steps: Optional[int]

    @staticmethod
    def load(folder: Path) -> Optional[Seal]:
        """None for a seal that was never finished: its manifest is written last.

        Raises ContractError for one that is finished and that this program cannot read. It may
        be the only copy: nobody deletes it."""
        try:
            manifest = Manifest.decode((folder / "manifest.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        record = read_json(folder / "seal.json") or {}
        try:
            tree = {path: (int(each[0]), int(each[1])) for path, each in record["tree"].items()}
            return Seal(folder, manifest, tree, from_json(record["known"]), record["max_steps"])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ContractError("its seal.json is none") from error

    @property
    def name(self) -> str:
        return str(self.manifest.meta["name"])

    @property
    def generation(self) -> int:
        return int(self.manifest.meta["generation"])

    @property
    def sealed_at(self) -> str:
        return str(self.manifest.meta["sealed_at"])

    @property
    def is_held(self) -> bool:
        """Whether its bytes are still here."""
        return (self.folder / "tree").is_dir()

    @property
    def is_acked(self) -> bool:
        return (self.folder / "acked").exists()

    def acknowledge(self) -> None:
        """The controller holds it. One rename: on a full disk there is no room to write that
        down, and what is acknowledged is what can be freed."""
        with contextlib.suppress(FileNotFoundError):  # another connection said so before
            (self.folder / "unacked").replace(self.folder / "acked")
        (self.folder / "acked").touch()
        fsync_folder(self.folder)

    def is_intact(self, path: str, found: os.stat_result) -> bool:
        return self.tree.get(path) == (found.st_size, found.st_mtime_ns)

    def rewritten(self) -> Optional[str]:
        """The first file that is not what was sealed, if any."""
        for path in self.tree:
            try:
                found = (self.folder / "tree" / path).lstat()
            except FileNotFoundError:
                return path if self.is_held else None
            if not self.is_intact(path, found):
                return path
        return None

    def forget(self) -> None:
        """Delete the bytes; what it was stays on record."""
        tree, gone = self.folder / "tree", self.folder / "tree.gone"
        with contextlib.suppress(FileNotFoundError):
            tree.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def fact(self) -> Dict[str, Any]:
        meta = self.manifest.meta
        kept = ("attempt", "name", "generation", "step", "final", "world_size")
        return {
            **{key: meta[key] for key in kept},
            "resumes": meta.get("resumes", True),
            "max_steps": self.max_steps,
            "size_bytes": self.manifest.size_bytes,
            "digest": self.manifest.digest,
        }


def load_seals(folder: Path) -> List[Seal]:
    """All finished seals that can be read, oldest first."""
    seals = [found for found in look_through(folder).values() if isinstance(found, Seal)]
    return sorted(seals, key=lambda seal: (seal.sealed_at, seal.name))


def load_unreadable(folder: Path) -> Dict[Path, Exception]:
    """All finished seals that cannot be read, and why."""
    found = look_through(folder)
    return {path: each for path, each in found.items() if isinstance(each, Exception)}


def look_through(folder: Path) -> Dict[Path, Union[Seal, Exception, None]]:
    """Whatever lies among the seals: a seal, why it cannot be read, or None for a beginning."""
    found: Dict[Path, Union[Seal, Exception, None]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            found[path] = Seal.load(path)
        except (ContractError, OSError) as error:
            found[path] = error
    return found


def seal_folder(seals: Path, name: str, generation: int) -> Path:
    return seals / ("%s.%d" % (name, generation))
