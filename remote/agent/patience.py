"""How long a checkpoint may be incomplete before somebody should look: a trainer that died within a
save, or a layout that is not what the job says, would otherwise be noticed at the run's end."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Deque

from remote.agent.pin import Pin

SPARE_S = 300.0
FACTOR = 3.0


class Patience:
    """Learns from the saves that were complete how long one takes."""

    def __init__(self) -> None:
        self._took: Deque[float] = deque(maxlen=20)

    def learn(self, pin: Pin) -> None:
        self._took.append(max(0.0, pin.changed_at - pin.opened_at))

    def is_over(self, pin: Pin, now: float) -> bool:
        """Whether nothing was written to it for three saves' time and five minutes."""
        usual = median(self._took) if self._took else 0.0
        return now - pin.changed_at > FACTOR * usual + SPARE_S
