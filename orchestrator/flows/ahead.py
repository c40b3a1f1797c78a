"""When to connect to a box ahead of need: a connection takes longer than a small checkpoint takes
to be sealed, so it is begun when the trainer begins to write."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core.run import Instance, Run
from orchestrator.flows.box import endpoint_of
from orchestrator.ports import Endpoint

LINGER = timedelta(seconds=10)  # from the last word of a save until its seal is told
LONGEST = timedelta(minutes=10)  # what was not sealed by then may never be


class Ahead:
    """Watches what the boxes of one run say that they have under way."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}
        self._until: dict[Endpoint, datetime] = {}

    def expected(
        self, run: Run, heartbeats: Mapping[str, Any], busy: frozenset[str], now: datetime
    ) -> Endpoint | None:
        """The box that will be asked for a checkpoint soon. While one is on its way, the next has
        to wait for it anyway."""
        box = run.instance
        names = _unsealed(run, box, heartbeats) if box else []
        self._since = {name: self._since.get(name, now) for name in names}
        is_saving = any(now - since < LONGEST for since in self._since.values())
        if not box or not is_saving or run.paused or any(key.startswith("fetch:") for key in busy):
            return None
        place = endpoint_of(box)
        self._until[place] = now + LINGER
        return place

    def over(self, now: datetime) -> list[Endpoint]:
        """The boxes that nothing is expected of any more; each is told once."""
        over = [place for place, until in self._until.items() if until <= now]
        for place in over:
            del self._until[place]
        return over

    def close(self) -> list[Endpoint]:
        """As `over`, for all."""
        return self.over(max(self._until.values())) if self._until else []


def _unsealed(run: Run, box: Instance, heartbeats: Mapping[str, Any]) -> list[str]:
    """What the box says that it holds, and that it has not told a seal of."""
    pulse = heartbeats.get(box.id)
    names = pulse.get("pinning") if isinstance(pulse, Mapping) else None
    if not isinstance(names, list) or box.host is None:
        return []
    sealed = {seal.name for seal in run.seals if seal.instance == box.id}
    return [name for name in names if isinstance(name, str) and name not in sealed]
