"""All seals of the box: makes them in a thread of its own, tells of them, and lets go of those
that the controller holds."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Iterator, Set, Tuple

from remote.agent.facts import Facts
from remote.agent.known import Known
from remote.agent.paths import Root
from remote.agent.private import make_private
from remote.agent.seal import Job, Seal, load_seals, make_seal

KEPT = 2
_NICE = 5  # hashing shall not take the processor from the trainer


class Sealer:
    """One thread asks. What earlier supervisors sealed is known from the start."""

    def __init__(self, root: Root, facts: Facts, known: Known) -> None:
        self._facts = facts
        self._known = known
        self._pool = ThreadPoolExecutor(1, "seal", initializer=_be_nice)
        self._jobs: Dict[str, Tuple[Job, Future[Seal]]] = {}
        self._made_private: Set[Path] = set()
        self._seals = load_seals(root.seals)
        for seal in self._seals:
            self._remember(seal)

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    def is_sealing(self, name: str) -> bool:
        return name in self._jobs

    def submit(self, job: Job) -> None:
        self._jobs[job.name] = (job, self._pool.submit(make_seal, job))

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
        """Report what the trainer wrote into after it was sealed, and keep it from doing so
        where that costs little while nothing waits to be sealed; forget what the controller
        holds, but for the newest two, which a crash resumes from."""
        held = [seal for seal in self._seals if seal.is_held]
        for seal in held:
            self._report_rewritten(seal)
            if seal.folder not in self._made_private and not self._jobs:
                self._made_private.add(seal.folder)
                self._pool.submit(make_private, seal)
        for seal in held[:-KEPT]:
            if seal.is_acked:
                seal.forget()

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(wait=True)

    def _remember(self, seal: Seal) -> None:
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


def _be_nice() -> None:
    """On Linux a thread has its own priority."""
    os.nice(_NICE)
