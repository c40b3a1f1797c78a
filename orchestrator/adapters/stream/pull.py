"""Bytes of a checkpoint coming in: what one connection does, and when a chunk is believed."""

from __future__ import annotations

from collections import deque

from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.partial import Partial
from orchestrator.adapters.stream.chunk import Chunk, Part
from orchestrator.adapters.stream.crew import Lane
from orchestrator.adapters.stream.tuning import Tuning
from orchestrator.adapters.stream.work import Work
from orchestrator.adapters.whole import Wholes
from orchestrator.errors import IntegrityError
from remote.contract import ContractError

TRIES = 3
SAFE = "Nothing is lost: the box keeps the checkpoint until it is held here."


class Pull:
    """One transfer of the checkpoint `name` into `partial`. Safe to use from several threads."""

    def __init__(
        self,
        name: str,
        generation: int,
        *,
        partial: Partial,
        work: Work,
        wholes: Wholes,
        tuning: Tuning,
    ) -> None:
        self._request = {"op": "read", "name": name, "generation": generation}
        self._name = name
        self._partial = partial
        self._work = work
        self._wholes = wholes
        self._tuning = tuning

    def run(self, lane: Lane) -> None:
        """Ask and receive on one connection, until nothing is left or the lane is called off."""
        flight: deque[list[Part]] = deque()
        buffer = memoryview(bytearray(self._tuning.block_bytes))
        while not lane.is_over:
            self._ask(lane, flight)
            if flight:
                self._receive(lane, flight, buffer)
            else:
                self._work.wait(lane.pause_s)

    def verify(self, chunk: Chunk) -> None:
        """Believe a whole chunk, or have it come again. Raises IntegrityError at the third time
        that it came with other bytes than the manifest says."""

        def read(offset: int, length: int) -> bytes:
            return self._partial.read(chunk.entry, offset, length)

        if chunk.is_right(read, self._tuning.block_bytes):
            self._partial.journal.add((chunk.entry.path, chunk.index))
            self._wholes.grew(chunk.entry)
            self._work.done(chunk)
            return
        self._work.again(chunk)
        if chunk.tries >= TRIES:
            raise IntegrityError(
                f"Chunk {chunk.index} of {chunk.entry.path} of {self._name} came {TRIES} times "
                "with other bytes than its manifest says. What is published here is unharmed.",
                hint="gpujob checkpoints verify",
            )

    def _ask(self, lane: Lane, flight: deque[list[Part]]) -> None:
        while lane.has_room(sum(part.size for parts in flight for part in parts), len(flight)):
            parts = self._work.take(lane.who)
            if not parts:
                return
            lane.spend(sum(part.size for part in parts))
            flight.append(parts)
            lane.send({**self._request, "parts": [part.to_json() for part in parts]})

    def _receive(self, lane: Lane, flight: deque[list[Part]], buffer: memoryview) -> None:
        header, parts = lane.head(), flight[0]
        with lane.frames.mapped():
            if header["bytes"] != sum(part.size for part in parts):
                raise ContractError("a reply of another length than was asked for")
        for part in parts:
            self._take_in(lane, part, buffer)
            self._work.arrived(lane.who, part)
        flight.popleft()
        lane.answered()

    def _take_in(self, lane: Lane, part: Part, buffer: memoryview) -> None:
        first = part.first
        try:
            while first < part.end:
                view = buffer[: min(len(buffer), part.end - first)]
                count = lane.frames.fill(view)
                self._keep(lane, part.chunk, first, view[:count])
                first += count
        finally:
            # What came before a cut, or before the rest of the chunk, is a hint for a later try.
            if first > part.first and not part.chunk.is_whole:
                start = part.chunk.start + part.first
                span = (part.chunk.entry.path, start, first - part.first)
                self._partial.journal.add_span(span)

    def _keep(self, lane: Lane, chunk: Chunk, first: int, data: memoryview) -> None:
        lane.heard(len(data))
        useful = self._work.begin(lane.who, chunk, first, first + len(data))
        if useful is None:
            return
        (low, high), hashed = useful
        part, kept, is_whole = data[low - first : high - first], False, False
        try:
            if hashed:
                chunk.update(part)
            with disk_room(self._partial.root, safe=SAFE):
                self._partial.put(chunk.entry, chunk.start + low, part)
            kept = True
        finally:
            is_whole = self._work.finish(chunk, (low, high), hashed=hashed, kept=kept)
        if is_whole:
            self.verify(chunk)
