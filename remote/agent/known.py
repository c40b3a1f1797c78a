"""What was seen before under a checkpoint's name, so that only new bytes become a generation."""

from __future__ import annotations

from collections import defaultdict
from typing import DefaultDict, Set, Tuple

from remote.agent.scan import Identity, Listing


class Known:
    """Files that are sealed, dropped or older than the attempt, and the generations in use."""

    def __init__(self) -> None:
        self._files: DefaultDict[str, Set[Tuple[str, Identity]]] = defaultdict(set)
        self._generations: DefaultDict[str, int] = defaultdict(int)

    def add(self, name: str, listing: Listing) -> None:
        self._files[name].update(listing.items())

    def has(self, name: str, path: str, identity: Identity) -> bool:
        return (path, identity) in self._files[name]

    def fresh(self, name: str, listing: Listing) -> Listing:
        """The files of `listing` that were written since."""
        known = self._files[name]
        return {path: each for path, each in listing.items() if (path, each) not in known}

    def is_another(self, name: str, listing: Listing) -> bool:
        """Whether the folder holds another checkpoint than the known ones: a known file was
        written again, or nothing is known of it. A file that joined later makes no other one."""
        fresh = self.fresh(name, listing)
        names = {path for path, _ in self._files[name]}
        return bool(fresh) and (len(fresh) == len(listing) or any(path in names for path in fresh))

    def generation(self, name: str) -> int:
        """The youngest generation of this name; 0 before the first."""
        return self._generations[name]

    def use(self, name: str, generation: int) -> None:
        self._generations[name] = max(self._generations[name], generation)
