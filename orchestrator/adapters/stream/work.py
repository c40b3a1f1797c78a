"""What is left to move, shared by the connections of one transfer.

Each connection takes a chunk and asks for it piece by piece, in order. One that has nothing left
takes the end of another's chunk, and at last asks once more for what a slow one holds up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from itertools import islice

from orchestrator.adapters.stream.chunk import Chunk, Part, Range
from orchestrator.adapters.stream.meter import Meter
from orchestrator.adapters.stream.tuning import Tuning
from remote.contract import MAX_PARTS

LAST = 8  # pieces of each connection that are looked at, from the last one on
DEAD_S = 5.0  # what is this late is asked for again whatever it costs
SPARE = 0.01  # of the bytes may come twice to be done sooner
LATE = 1.5  # how much later than ours another's bytes have to be before they are asked for again


class Lane:
    """What the work knows of one connection."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.flight: deque[Part] = deque()
        self.chunk: Chunk | None = None

    @property
    def flight_bytes(self) -> int:
        return sum(part.size for part in self.flight)


class Work:
    """The chunks of one transfer, in order; every method may be called from any thread.

    `size` is what the chunks of `fresh` are in all."""

    def __init__(self, fresh: Iterator[Chunk], size: int, tuning: Tuning) -> None:
        self.left = size
        self.meter = Meter()
        self._tuning = tuning
        self._spare = max(2 * tuning.piece_bytes, int(size * SPARE))
        self._fresh = fresh
        self._peeked: Chunk | None = None
        self._again: deque[Chunk] = deque()
        self._open: dict[Chunk, None] = {}
        self._lanes: dict[int, Lane] = {}
        self._changed = threading.Condition()

    @property
    def is_done(self) -> bool:
        return self.left == 0

    def join(self, who: int) -> None:
        with self._changed:
            self._lanes[who] = Lane()

    def leave(self, who: int) -> None:
        """What this connection was asked for and did not bring is to be had again."""
        with self._changed:
            lane = self._lanes.pop(who, None)
            if lane is None:
                return
            for chunk in dict.fromkeys(part.chunk for part in lane.flight):
                chunk.unask(who)
                self._again.append(chunk)
            if lane.chunk:
                self._again.append(lane.chunk)
            self._changed.notify_all()

    def take(self, who: int) -> list[Part]:
        """What to ask for next: a piece of a chunk, or several small files; nothing when all is
        asked for."""
        with self._changed:
            lane = self._lanes[who]
            part = self._next(who, lane)
            parts = [part] if part else []
            size = sum(part.size for part in parts)
            while parts and parts[-1].size == parts[-1].chunk.size and len(parts) < MAX_PARTS:
                chunk = self._peek()
                if chunk is None or size + chunk.size > self._tuning.piece_bytes:
                    break
                self._open_next()
                parts += [self._ask(who, lane, chunk, hole) for hole in chunk.holes()]
                size += chunk.size
            return parts

    def arrived(self, who: int, part: Part) -> None:
        """All that will come of `part` by this connection has come."""
        with self._changed:
            part.chunk.unask(who, (part.first, part.end))
            if lane := self._lanes.get(who):
                lane.flight.remove(part)
            if part.chunk.holes() and not part.chunk.is_whole:
                self._again.append(part.chunk)

    def begin(self, who: int, chunk: Chunk, first: int, end: int) -> tuple[Range, bool] | None:
        """As `Chunk.begin`."""
        with self._changed:
            if lane := self._lanes.get(who):
                lane.meter.add(end - first)
            return chunk.begin(first, end)

    def finish(self, chunk: Chunk, part: Range, *, hashed: bool, kept: bool) -> bool:
        """As `Chunk.finish`."""
        with self._changed:
            if kept:
                self.meter.add(part[1] - part[0])
            return chunk.finish(part, hashed=hashed, kept=kept)

    def done(self, chunk: Chunk) -> None:
        """The chunk is what it has to be."""
        with self._changed:
            self._open.pop(chunk, None)
            self.left -= chunk.size
            self._changed.notify_all()

    def again(self, chunk: Chunk) -> None:
        """The chunk came wrong: all of it has to come again."""
        with self._changed:
            chunk.spoil()
            self._again.append(chunk)
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Until something may be there to take."""
        with self._changed:
            if not self.is_done:
                self._changed.wait(timeout_s)

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _next(self, who: int, lane: Lane) -> Part | None:
        if lane.chunk and (part := self._cut(who, lane, lane.chunk)):
            return part
        lane.chunk = self._orphan() or self._open_next()
        if lane.chunk:
            return self._cut(who, lane, lane.chunk)
        return self._steal(who, lane) or self._late(who, lane)

    def _cut(self, who: int, lane: Lane, chunk: Chunk) -> Part | None:
        """The next piece of the connection's own chunk."""
        holes = chunk.holes()
        if chunk.is_whole or not holes:
            return None
        first, end = holes[0]
        return self._ask(who, lane, chunk, (first, min(end, first + self._tuning.piece_bytes)))

    def _orphan(self) -> Chunk | None:
        """A chunk that was begun and lost its connection, or came wrong."""
        while self._again:
            chunk = self._again.popleft()
            if chunk in self._open and not chunk.is_whole and chunk.holes():
                return chunk
        return None

    def _steal(self, who: int, lane: Lane) -> Part | None:
        """The end of the largest hole of all."""
        holes = [
            (end - first, end, chunk)
            for chunk in self._open
            if not chunk.is_whole
            for first, end in chunk.holes()
        ]
        if not holes:
            return None
        size, end, chunk = max(holes, key=lambda each: each[0])
        length = min(size, max(self._tuning.least_bytes, size // 2), self._tuning.piece_bytes)
        return self._ask(who, lane, chunk, (end - length, end))

    def _late(self, who: int, lane: Lane) -> Part | None:
        """What another connection will bring much later than this one would."""
        candidates = [
            (self._expected_s(other, part), part)
            for name, other in self._lanes.items()
            if name != who
            for part in islice(reversed(other.flight), LAST)
            if not self._is_doubled(name, part)
        ]
        found = max(candidates, key=lambda each: each[0], default=None)
        if found is None:
            return None
        late_s, part = found
        ours_s = (lane.flight_bytes + part.size) / max(lane.meter.rate(), 1.0)
        is_dead = late_s > DEAD_S
        if late_s < max(LATE * ours_s, self._tuning.late_s):
            return None
        if not is_dead and self._spare < part.size:
            return None
        self._spare -= part.size
        return self._ask(who, lane, part.chunk, (part.first, part.end))

    def _expected_s(self, lane: Lane, part: Part) -> float:
        ahead = 0
        for each in lane.flight:
            ahead += each.size
            if each is part:
                break
        return ahead / max(lane.meter.rate(), 1.0)

    def _is_doubled(self, who: int, part: Part) -> bool:
        return part.chunk.is_whole or any(
            name != who and each.chunk is part.chunk and each.first < part.end > part.first
            for name, lane in self._lanes.items()
            for each in lane.flight
        )

    def _ask(self, who: int, lane: Lane, chunk: Chunk, part: Range) -> Part:
        asked = Part(chunk, *part)
        chunk.ask(who, part)
        lane.flight.append(asked)
        return asked

    def _peek(self) -> Chunk | None:
        if self._peeked is None:
            self._peeked = next(self._fresh, None)
        return self._peeked

    def _open_next(self) -> Chunk | None:
        chunk = self._peek()
        self._peeked = None
        if chunk:
            self._open[chunk] = None
        return chunk
