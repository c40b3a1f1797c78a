"""The connections of one transfer, a thread each: how many there are, and what becomes of the
transfer when one of them breaks.

The thread that asked for the transfer looks after them; it alone reports and raises."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from orchestrator.adapters.frames import Frames, refusal
from orchestrator.adapters.stream.growth import Growth
from orchestrator.adapters.stream.meter import Meter
from orchestrator.adapters.stream.pace import Pace
from orchestrator.adapters.stream.pool import Pool, Way
from orchestrator.adapters.stream.tuning import Tuning
from orchestrator.adapters.stream.work import Work
from orchestrator.errors import GpujobError, HostKeyChanged, Locked, Unreachable, Wiped

TICK_S = 0.05
GRACE_S = 0.02  # for one that is just done
REFUSED_TIMES = 3
MOST_REQUESTS = 8
HOPELESS = (HostKeyChanged, Locked, Wiped)


@dataclass(eq=False)
class Lane:
    """One connection at work."""

    who: int
    frames: Frames
    crew: Crew
    is_up: bool = False
    is_retired: bool = False
    received: int = 0  # bytes
    pending: int = 0  # requests without a reply
    meter: Meter = field(default_factory=Meter)
    thread: threading.Thread | None = None

    @property
    def is_over(self) -> bool:
        return self.is_retired or self.crew.is_over

    @property
    def pause_s(self) -> float:
        """How long to wait when there is nothing to ask for and nothing under way."""
        return min(max(self.crew.pace.wait_s(), TICK_S), 0.5)

    def has_room(self, flight_bytes: int, requests: int) -> bool:
        """Whether to ask for more, with that much asked for and not here."""
        tuning = self.crew.tuning
        if self.is_over or requests >= MOST_REQUESTS:
            return False
        ahead = int(2 * self.meter.rate() * (self.crew.growth.rtt_s or 0.0))
        depth = min(tuning.depth_bytes + ahead, tuning.most_depth_bytes)
        is_deep = requests and flight_bytes + tuning.piece_bytes > depth
        return not is_deep and self.crew.pace.wait_s() <= 0

    def spend(self, size: int) -> None:
        self.crew.pace.spend(size)

    def heard(self, size: int) -> None:
        """Bytes came."""
        self.received += size
        self.meter.add(size)
        self.crew.progressed()

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.pending += 1
        self.frames.send(header, payload)

    def head(self) -> dict[str, Any]:
        """The header of the next reply to a request that was sent since; `answered` has to follow
        once its payload was read. Raises what an error reply stands for."""
        header = self.frames.head()
        self.crew.growth.measured(self.frames.rtt_s)
        if "error" in header:
            self.answered()
            self._refused(refusal(header))
        return header

    def answered(self) -> None:
        self.pending -= 1

    def _refused(self, error: GpujobError) -> NoReturn:
        """A request may have been garbled on its way, so a new connection asks again; raises for
        good when that does not help."""
        self.crew.refused(error)
        raise Unreachable(str(error)) from error


class Crew:
    """Runs `each` on every connection until `work` is done: first on the one for questions, then
    on others of `pool`. `way` is what is known of the link, and is learned again."""

    def __init__(
        self,
        work: Work,
        each: Callable[[Lane], None],
        *,
        pool: Pool,
        way: Way,
        tuning: Tuning,
        pace: Pace,
    ) -> None:
        self.tuning = tuning
        self.pace = pace
        self.growth = Growth(tuning, way.rtt_s)
        self.is_over = False
        self._work = work
        self._each = each
        self._control: Frames | None = pool.control
        self._pool = pool
        self._way = way
        self._lock = threading.Lock()
        self._lanes: dict[int, Lane] = {}
        self._error: BaseException | None = None
        self._made = self._failures = self._fruitless = self._refusals = 0
        self._not_before = self._started_at = 0.0

    @property
    def streams(self) -> int:
        """How many connections work now."""
        with self._lock:
            return sum(lane.is_up for lane in self._lanes.values())

    def run(self, told: Callable[[], None]) -> None:
        """Until the work is done; `told` is called meanwhile, in this thread. Raises what made
        it impossible: Unreachable when connection after connection brought nothing."""
        try:
            while not self._work.is_done and self._error is None:
                self._staff(time.monotonic())
                self._work.wait(TICK_S)
                told()
        finally:
            self._dismiss()
            self._way.rtt_s = self.growth.rtt_s
        if self._error is not None:
            raise self._error

    def fail(self, error: BaseException) -> None:
        """Give the transfer up. The first reason is the one that counts."""
        with self._lock:
            self._error = self._error or error
        self._work.wake()

    def progressed(self) -> None:
        self._failures = self._fruitless = 0

    def refused(self, error: GpujobError) -> None:
        """Count an error reply. Raises it when it is one too many."""
        with self._lock:
            self._refusals += 1
            is_final = self._refusals >= REFUSED_TIMES
        if is_final or type(error) is GpujobError:  # the box's disk is full
            raise error

    def _staff(self, now: float) -> None:
        with self._lock:
            lanes = list(self._lanes.values())
        up = sum(lane.is_up for lane in lanes)
        wanted = self.growth.wanted(
            now, up=up, moved=self._work.meter.total, left=self._work.left, most=self.pace.streams()
        )
        working = [lane for lane in lanes if not lane.is_retired]
        if len(working) > wanted:
            working[-1].is_retired = True
        for more in range(len(working), wanted):
            if self._may_start(now, is_first=more == 0):
                self._start(now)

    def _may_start(self, now: float, *, is_first: bool) -> bool:
        spacing_s = self.tuning.spacing_s * random.uniform(0.75, 1.5)
        is_time = now >= self._started_at + spacing_s or self._pool.has_ahead
        return now >= self._not_before and (is_first or is_time)

    def _start(self, now: float) -> None:
        frames = self._control or self._pool.take()
        lane = Lane(self._made, frames, self)
        self._control, self._started_at = None, now
        self._made += 1
        with self._lock:
            self._lanes[lane.who] = lane
        lane.thread = threading.Thread(target=self._work_on, args=(lane,), daemon=True)
        lane.thread.start()

    def _work_on(self, lane: Lane) -> None:
        self._work.join(lane.who)
        try:
            with lane.frames.working():
                try:
                    self._use(lane)
                finally:
                    lane.is_up = False
                    if lane.pending:
                        lane.frames.drop()
        except Unreachable as error:
            self._broke(lane, error)
        except BaseException as error:
            self.fail(error)
        finally:
            self._work.leave(lane.who)
            with self._lock:
                self._lanes.pop(lane.who, None)
            self._pool.give_back(lane.frames)

    def _use(self, lane: Lane) -> None:
        if lane.is_over:
            return
        lane.frames.connect()
        lane.is_up = True
        lane.frames.greet()
        self._each(lane)

    def _broke(self, lane: Lane, error: Unreachable) -> None:
        """One connection is gone: the others go on, and it is made again after a while."""
        if self.is_over or lane.is_retired:
            return
        now = time.monotonic()
        with self._lock:
            self._failures += 1
            self._fruitless += lane.received == 0
            wait_s = self.tuning.retry_s * 2 ** (self._failures - 1)
            self._not_before = now + min(wait_s, self.tuning.retry_most_s) * random.uniform(0.5, 1)
            is_final = self._fruitless >= self.tuning.fruitless
        if lane.received == 0:
            self.growth.failed(now, self.streams)
        if is_final or isinstance(error, HOPELESS) or lane.frames.is_closed:
            self.fail(error)

    def _dismiss(self) -> None:
        """No connection is left at work, whatever it waits for."""
        self.is_over = True
        self._work.wake()
        with self._lock:
            lanes = list(self._lanes.values())
        patience_s = GRACE_S
        for lane in lanes:
            while lane.thread and lane.thread.is_alive():
                lane.thread.join(patience_s)
                if lane.thread.is_alive() and (lane.pending or not lane.is_up):
                    lane.frames.interrupt()
                patience_s = TICK_S
