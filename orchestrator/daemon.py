"""The scheduler loop: every live run, one step at a time, in one process."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from orchestrator.core.codec import to_json
from orchestrator.daemon_lock import Lock
from orchestrator.errors import StaleLease
from orchestrator.flows.step import Stepper, World, summary

log = logging.getLogger(__name__)

IDLE_S = 3.0
STEP_S = 0.25
PUBLISH_S = 1.0
TROUBLE_S = 5.0
SLEPT = timedelta(seconds=60)


class Scheduler:
    """Steps every live run whose lease it can have."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._steppers: dict[str, Stepper] = {}
        self._not_before: dict[str, float] = {}
        self._publish_at: dict[str, float] = {}
        self._turned_at = world.clock.now()

    def turn(self, only: str | None = None) -> int:
        """One step of each live run; how many are live."""
        self._notice_sleep()
        live = [run for run in self._world.ledger.active() if only in (None, run)]
        for run in live:
            if self._not_before.get(run, 0.0) <= self._world.clock.monotonic():
                self._step(run)
        return len(live)

    def _notice_sleep(self) -> None:
        """A laptop that was closed for a night has heard nobody, and lost nobody."""
        now, before = self._world.clock.now(), self._turned_at
        self._turned_at = now
        # A clock that was set back is as bad: what is due would not be for as long.
        if not timedelta(0) <= now - before <= SLEPT:
            self._world.fleet.woke()
            for stepper in self._steppers.values():
                stepper.woke()

    def close(self) -> None:
        for run in list(self._steppers):
            self._let_go(run)

    def _step(self, run: str) -> None:
        try:
            stepper = self._stepper(run)
            if stepper is None:
                return
            ended = stepper.step()
            with suppress(OSError):
                self._publish(run, stepper)
            if ended:
                self._let_go(run)
        except StaleLease as error:
            log.warning("%s", error)
            stale = self._steppers.pop(run, None)
            if stale:
                stale.close()
        except Exception:
            # One run's trouble is not the others'. What is rented stays on record, and the next
            # step looks again.
            log.exception("%s: this step failed", run)
            if run in self._steppers:
                self._steppers[run].stumbled()
            self._not_before[run] = self._world.clock.monotonic() + TROUBLE_S

    def _stepper(self, run: str) -> Stepper | None:
        if run not in self._steppers:
            lease = self._world.ledger.acquire(run)
            if lease is None:
                return None
            self._steppers[run] = Stepper(lease, self._world)
        return self._steppers[run]

    def _let_go(self, run: str) -> None:
        stepper = self._steppers.pop(run)
        self._publish_at.pop(run, None)
        stepper.close()
        self._world.ledger.release(stepper.lease)

    def _publish(self, run: str, stepper: Stepper) -> None:
        """What is no event, for the screens: never read back, so a lost write costs nothing."""
        path = self._world.state / "runs" / run / "now.json"
        text = json.dumps(to_json({"v": 1, "at": self._world.clock.now(), **summary(stepper)}))
        beside = path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(path)
        self._publish_at[run] = self._world.clock.monotonic() + PUBLISH_S


def serve(world: World, lock: Lock, *, until_idle: bool, stop: Callable[[], bool]) -> None:
    """Step all runs until a signal, or until none has been live for a while. Requests come
    through the ledger."""
    scheduler = Scheduler(world)
    idle_since = world.clock.monotonic()
    try:
        while not stop():
            if scheduler.turn():
                idle_since = world.clock.monotonic()
            idle_s = world.clock.monotonic() - idle_since
            if until_idle and idle_s > IDLE_S and _may_leave(world, lock):
                return
            world.clock.wait(STEP_S)
    finally:
        scheduler.close()


def _may_leave(world: World, lock: Lock) -> bool:
    """First take the words back, then look once more: a run recorded before is seen here, and
    whoever records one later finds no daemon and starts the next."""
    lock.hush()
    if not world.ledger.active():
        return True
    lock.speak()
    return False


def run_alone(world: World, run: str, stop: Callable[[], bool]) -> None:
    """`--foreground`: the same loop for one run, in the command's own process."""
    scheduler = Scheduler(world)
    try:
        while scheduler.turn(only=run) and not stop():
            world.clock.wait(STEP_S)
    finally:
        scheduler.close()


def stop_on_signals() -> Callable[[], bool]:
    """Whether SIGTERM or SIGINT has come: the loop then ends between two steps."""
    came: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: came.append(got))
    return lambda: bool(came)
