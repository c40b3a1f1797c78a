"""A seal: a checkpoint found complete, hashed, and kept out of the trainer's reach."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from remote.agent.durable import read_json
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
        """None for a seal that was never finished."""
        record = read_json(folder / "seal.json")
        try:
            manifest = Manifest.decode((folder / "manifest.json").read_bytes())
        except (FileNotFoundError, ContractError):
            return None
        if record is None:
            return None
        tree = {path: (int(each[0]), int(each[1])) for path, each in record["tree"].items()}
        return Seal(folder, manifest, tree, from_json(record["known"]), record["max_steps"])

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
    """All finished seals, oldest first."""
    if not folder.is_dir():
        return []
    seals = [seal for seal in map(Seal.load, folder.iterdir()) if seal]
    return sorted(seals, key=lambda seal: (seal.sealed_at, seal.name))


def seal_folder(seals: Path, name: str, generation: int) -> Path:
    return seals / ("%s.%d" % (name, generation))
