"""All seals of the box: makes them in a thread of its own, tells of them, and lets go of those
that the controller holds."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, FrozenSet, Iterator, Optional, Tuple

from remote.agent.facts import Facts
from remote.agent.hashing import be_nice, spare_cores
from remote.agent.known import Known
from remote.agent.paths import Root
from remote.agent.private import make_private
from remote.agent.pusher import has_room, is_settled
from remote.agent.seal import Seal, load_seals, load_unreadable, look_through
from remote.agent.sealing import FINAL, Job, end_with, give_back, make_seal

KEPT = 2
# A fetch over a short link is done by then: a copy would only take the processor and the disk from
# it. Over a long one, the trainer may write into a linked file before all of it is away.
SHARED_S = 10.0


class Sealer:
    """One thread asks. What earlier supervisors sealed is known from the start; what they left
    unfinished goes back to its pin. What is finished and `unreadable` stays as it is: other bytes
    under its name are another generation. `clock` is monotonic."""

    def __init__(
        self,
        root: Root,
        facts: Facts,
        known: Known,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._facts = facts
        self._known = known
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, "seal", initializer=be_nice)
        self._jobs: Dict[str, Tuple[Job, Future[Seal]]] = {}
        self._private_at: Dict[Path, float] = {}
        _clean(root)
        self._seals = load_seals(root.seals)
        for seal in self._seals:
            self._remember(seal)
        self.unreadable = {path.name: why for path, why in load_unreadable(root.seals).items()}
        for place in self.unreadable:
            name, _, generation = place.rpartition(".")
            if generation.isdigit():
                known.use(name, int(generation))

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    def is_sealing(self, name: str) -> bool:
        return name in self._jobs

    def newest_files(self, attempt: int) -> Optional[FrozenSet[str]]:
        """What the attempt's newest seal holds; None before its first."""
        for seal in reversed(self._seals):
            if seal.manifest.meta["attempt"] == attempt:
                return frozenset(entry.path for entry in seal.manifest.files)
        return None

    def submit(self, job: Job) -> None:
        workers = spare_cores(job.world_size or 1)
        self._jobs[job.name] = (job, self._pool.submit(make_seal, job, workers))

    def end_with_last(self, attempt: int, ends_so: Callable[[str], bool]) -> None:
        """Seal the last checkpoint of an attempt again as what it ends with, unless it has final
        weights; `ends_so` says for which names that is right. Raises OSError."""
        ours = [seal for seal in self._seals if seal.manifest.meta["attempt"] == attempt]
        fitting = [seal for seal in ours if seal.is_held and ends_so(seal.name)]
        if any(seal.manifest.meta["final"] for seal in ours) or not fitting:
            return
        last = max(fitting, key=lambda seal: (seal.manifest.meta["step"] or 0, seal.sealed_at))
        seal = end_with(last, self._root.seals, self._known.generation(FINAL) + 1)
        self._seals.append(seal)
        self._remember(seal)
        del self._private_at[seal.folder]  # it shares with another of ours
        self.tell()

    def finished(self) -> Iterator[Tuple[Job, "Future[Seal]"]]:
        """Jobs that ended since the last call, sealed (and then on record here) or failed."""
        for name, (job, future) in list(self._jobs.items()):
            if not future.done():
                continue
            del self._jobs[name]
            if future.exception() is None:
                self._seals.append(future.result())
                self._remember(future.result())
            yield job, future

    def tell(self) -> None:
        """Tell of every seal that was not told of yet. Raises OSError; then call it again."""
        for seal in self._seals:
            self._facts.tell("checkpoint.sealed", **seal.fact())

    def tidy(self) -> None:
        """Forget what the controller holds, but for the newest two, which a crash resumes from.
        Then report what the trainer wrote into after it was sealed, and keep it from doing so
        where that costs little, the controller is not about to hold it anyway and nothing waits
        to be sealed. Raises OSError."""
        held = [seal for seal in self._seals if seal.is_held]
        for seal in held[:-KEPT]:
            if seal.is_acked and self._may_go(seal):
                seal.forget()
        for seal in held:
            self._report_rewritten(seal)
            if not seal.is_acked and not self._jobs:
                self._part(seal)

    def _may_go(self, seal: Seal) -> bool:
        """Where seals are pushed to S3 as well, not before that was done or given up, as long as
        there is room."""
        is_due = self._root.push.exists() and not is_settled(seal.folder)
        return not is_due or not has_room(self._root.seals)

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(wait=True)

    def _part(self, seal: Seal) -> None:
        """Once it has been shared with the trainer for a while, and once only."""
        if self._clock() >= self._private_at.get(seal.folder, float("inf")):
            del self._private_at[seal.folder]
            self._pool.submit(make_private, seal)

    def _remember(self, seal: Seal) -> None:
        self._private_at[seal.folder] = self._clock() + SHARED_S
        self._known.add(seal.name, seal.known)
        self._known.use(seal.name, seal.generation)

    def _report_rewritten(self, seal: Seal) -> None:
        path = None if seal.is_acked else seal.rewritten()
        if path:
            self._facts.tell(
                "checkpoint.dropped",
                attempt=seal.manifest.meta["attempt"],
                name=seal.name,
                generation=seal.generation,
                why="the trainer wrote into %s after it was sealed" % path,
            )


def _clean(root: Root) -> None:
    """What a killed supervisor was about to make, or to forget."""
    for folder, found in look_through(root.seals).items():
        shutil.rmtree(folder / "tree.gone", ignore_errors=True)
        if found is None:
            give_back(folder, root.pins / folder.name)
