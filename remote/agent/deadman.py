"""The dead-man switch: a box that nobody asks after any more ends its trainer and, where its
provider allows it, its own billing.

It is a machine for the worst day, so nothing on the box may keep it from working: a fact that
cannot be written, a checkpoint that never settles and an API that is down each cost time only.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from http.client import HTTPException
from typing import Any, Callable, List, Optional

from remote.agent.attempt import Attempt
from remote.agent.complaints import log
from remote.agent.facts import Facts
from remote.agent.halt import ask_to_stop
from remote.agent.paths import Root
from remote.agent.spec import DeadmanRule, Spec, StopRequest
from remote.agent.start import stop
from remote.contract import ContractError

LOOK_S = 1.0
GRACE_S = 60.0  # a trainer may save at TERM
SETTLE_S = 1800.0  # what is not sealed by then never will be
FIRST_WAIT_S = 5.0
MAX_WAIT_S = 600.0
HELD_S = 24 * 3600.0  # how long checkpoints that are nowhere else hold up the stop
NOT_ALLOWED = (401, 403)


def only_here(root: Root) -> List[str]:
    """Names of the seals that no controller has said it holds and that are not in S3."""
    found = [each.parent for each in sorted(root.seals.glob("*/manifest.json"))]
    elsewhere = ("acked", "pushed")
    return [each.name for each in found if not any((each / word).exists() for word in elsewhere)]


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class _Firing:
    """What is under way once the switch has fired. Times are monotonic."""

    attempt: int
    at: float
    ask_at: float
    wait_s: float = FIRST_WAIT_S
    is_termed: bool = False
    is_refused: bool = False
    is_held: bool = False


class Deadman:
    """One thread steps. `clock` is monotonic, `now` is aware; `ask` sends the stop request with
    a token and returns the HTTP status.

    A new one takes its birth for a sign of life: a supervisor is started by a controller."""

    def __init__(
        self,
        root: Root,
        facts: Facts,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _now,
        ask: Callable[[StopRequest, str], int] = ask_to_stop,
    ) -> None:
        self._root = root
        self._facts = facts
        self._clock = clock
        self._now = now
        self._ask = ask
        self._mark = self._look()
        self._heard_at = clock()
        self._next_at = float("-inf")
        self._firing: Optional[_Firing] = None

    def step(self, *, settled: bool) -> None:
        """Look, at most once in LOOK_S, and do what is due. `settled`: the trainer has ended and
        what it left is sealed. A controller that is heard again calls everything off."""
        now = self._clock()
        if now < self._next_at:
            return
        self._next_at = now + LOOK_S
        self._listen(now)
        spec = self._newest_spec()
        rule = spec.deadman if spec else None
        if spec is None or rule is None or now - self._heard_at < rule.orphan_s:
            self._firing = None
            return
        running = self._running()
        if self._firing is None and not (running and self._may_train(rule)):
            self._fire(spec.attempt, now, running=bool(running))
        if self._firing:
            self._go_on(self._firing, rule, now, running=running, settled=settled)

    def _look(self) -> Optional[int]:
        try:
            return self._root.heard.stat().st_mtime_ns
        except OSError:
            return None

    def _listen(self, now: float) -> None:
        """By change and not by age: the clock of a box may jump."""
        mark = self._look()
        if mark != self._mark:
            self._mark, self._heard_at = mark, now

    def _newest_spec(self) -> Optional[Spec]:
        for number in reversed(self._root.attempts()):
            try:
                return Spec.read(self._root, number)
            except (ContractError, OSError):
                continue
        return None

    def _running(self) -> List[int]:
        return [each for each in self._root.attempts() if Attempt(self._root, each).is_running]

    def _may_train(self, rule: DeadmanRule) -> bool:
        return rule.hours_until is None or self._now() < rule.hours_until

    def _fire(self, attempt: int, now: float, *, running: bool) -> None:
        """On record first, so that whoever comes back reads why."""
        silent_s = now - self._heard_at
        why = "the budget's hours are over" if running else "no trainer runs"
        reason = "no controller was heard for %.0f s and %s" % (silent_s, why)
        self._firing = _Firing(attempt, at=now, ask_at=now)
        self._tell("deadman.fired", attempt=attempt, reason=reason)

    def _go_on(
        self, firing: _Firing, rule: DeadmanRule, now: float, *, running: List[int], settled: bool
    ) -> None:
        """A process that a driver holds survives even KILL: in the end the box stops with it."""
        late = now - firing.at >= GRACE_S + SETTLE_S
        if running:
            self._end(firing, running, now)
        if not late and (running or not settled):
            return
        if not rule.stop or firing.is_refused or now < firing.ask_at:
            return
        if not self._is_held(firing, rule, now):
            self._stop_box(firing, rule.stop, now)

    def _is_held(self, firing: _Firing, rule: DeadmanRule, now: float) -> bool:
        """A stop empties the disk. The only copy of a checkpoint is worth what the box costs until
        the budget's hours are over; without such a word, a day."""
        held_s = HELD_S if rule.hours_until is None else float("inf")
        over = not self._may_train(rule) or now - firing.at >= held_s
        names = [] if rule.keeps_seals or over else only_here(self._root)
        if names and not firing.is_held:
            firing.is_held = True
            reason = "nobody has said to hold %s" % ", ".join(names[:20])
            self._tell("deadman.held", attempt=firing.attempt, reason=reason)
        return bool(names)

    def _end(self, firing: _Firing, running: List[int], now: float) -> None:
        if not firing.is_termed or now - firing.at >= GRACE_S:
            name = "KILL" if firing.is_termed else "TERM"
            firing.is_termed = True
            for attempt in running:
                stop(self._root, attempt, name)

    def _stop_box(self, firing: _Firing, request: StopRequest, now: float) -> None:
        """The proof that it worked is that we are not there any more: what was accepted and did
        not happen is asked for again, seldom."""
        token = os.environ.get(request.token_variable, "")
        if not token:
            self._refused(firing, None, "%s is not set on this box" % request.token_variable)
            return
        try:
            status = self._ask(request, token)
        except (OSError, HTTPException, ValueError) as error:
            self._later(firing, now, "it was not sent: %s" % type(error).__name__)
            return
        if status in NOT_ALLOWED:
            self._refused(firing, status, "the provider does not let this box stop itself")
        elif 200 <= status < 300:
            firing.wait_s = MAX_WAIT_S
            self._later(firing, now, "it was accepted")
        else:
            self._later(firing, now, "it was answered with %d" % status)

    def _later(self, firing: _Firing, now: float, what: str) -> None:
        log("the request to stop this box: %s" % what)
        firing.ask_at = now + firing.wait_s
        firing.wait_s = min(2 * firing.wait_s, MAX_WAIT_S)

    def _refused(self, firing: _Firing, status: Optional[int], message: str) -> None:
        firing.is_refused = True
        self._tell("deadman.refused", attempt=firing.attempt, status=status, message=message)

    def _tell(self, kind: str, **data: Any) -> None:
        """A full disk must not keep a box billing."""
        try:
            self._facts.tell(kind, **data)
        except OSError as error:
            log("%s could not be told: %s" % (kind, error))
