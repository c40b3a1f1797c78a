"""Files that the box holds already, under another name: in a sealed checkpoint, or in an upload
that was broken off. What has the bytes is copied and not sent."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from remote.agent.paths import Root
from remote.agent.replies import Refusal
from remote.agent.seal import load_seals
from remote.agent.staging import Staging
from remote.agent.trees import copy_verified
from remote.contract import FileEntry

LEAST_BYTES = 64 * 1024  # what is smaller is sent sooner than it is looked for
Content = Tuple[int, str]


class Elsewhere:
    """The files of this box by content, looked up once."""

    def __init__(self, root: Root, but: Path) -> None:
        """`but` is the staging folder that is to be filled."""
        self._places: Dict[Content, List[Path]] = {}
        for content, path in self._found(root, but):
            self._places.setdefault(content, []).append(path)

    def copy(self, entry: FileEntry, target: Path) -> bool:
        """Make `target` a verified copy of a file with these bytes; whether there was one."""
        for source in self._places.get((entry.size, entry.sha256), []):
            with contextlib.suppress(FileNotFoundError, Refusal):
                target.unlink(missing_ok=True)
                copy_verified(source, target, entry)
                return True
        return False

    def _found(self, root: Root, but: Path) -> Iterator[Tuple[Content, Path]]:
        for seal in load_seals(root.seals):
            for entry in seal.manifest.files if seal.is_held else ():
                yield (entry.size, entry.sha256), seal.folder / "tree" / entry.path
        folders = sorted(root.incoming.iterdir()) if root.incoming.is_dir() else []
        for staging in (Staging.load(folder) for folder in folders if folder != but):
            if staging:
                for entry in staging.manifest.files:
                    yield (entry.size, entry.sha256), staging.tree / entry.path
