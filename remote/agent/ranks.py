"""How many ranks write: as the trainer's own processes were told, else as the plan says."""

from __future__ import annotations

import time
from typing import Callable

from remote.agent.attempt import Attempt
from remote.agent.durable import read_json, write_json
from remote.agent.procs import descendants, environment
from remote.contract import PROTOCOL

REFRESH_S = 1.0


class Ranks:
    """The world size of one attempt; what was seen survives the trainer and the supervisor."""

    def __init__(
        self, attempt: Attempt, planned: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._attempt = attempt
        self._planned = planned
        self._clock = clock
        self._path = attempt.folder / "ranks.json"
        self._seen = int((read_json(self._path) or {}).get("seen", 0))
        self._written = int((read_json(self._path) or {}).get("written", 0))
        self._looked_at = float("-inf")

    def count(self) -> int:
        """Looks at the processes at most once a second."""
        if self._clock() - self._looked_at >= REFRESH_S:
            self._looked_at = self._clock()
            self._look()
        return self._seen or self._planned

    @property
    def written(self) -> int:
        """The most ranks that a complete checkpoint of the attempt had files of; 0 before one."""
        return self._written

    def wrote(self, ranks: int) -> None:
        """A complete checkpoint had the files of `ranks` ranks."""
        if ranks > self._written:
            self._written = ranks
            self._save()

    def _look(self) -> None:
        ends = [each for each in (self._attempt.wrapper, self._attempt.trainer) if each]
        tree = [*ends, *descendants(ends)]
        values = [environment(process, "WORLD_SIZE") for process in tree]
        sizes = [int(value) for value in values if value and value.isdigit()]
        if sizes and max(sizes) > self._seen:
            self._seen = max(sizes)
            self._save()

    def _save(self) -> None:
        record = {"v": PROTOCOL, "seen": self._seen, "written": self._written}
        write_json(self._path, record, durable=False)
