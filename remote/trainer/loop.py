"""The loop, from top to bottom: step, tell, evaluate, save, and stop when asked to."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from remote.trainer.checkpoint import Checkpoints
from remote.trainer.data.rows import Store
from remote.trainer.learner import Learner, StepResult
from remote.trainer.ranks import any_rank, rank
from remote.trainer.telemetry import Telemetry, now_s

MAX_SKIPPED = 50


class Diverged(Exception):
    """Training on would only cost money."""


class StopSignal:
    """SIGTERM means: at the next step boundary, when all ranks know, save and end.

    The ranks agree, because a signal reaches them at different moments, and a rank that stops
    alone leaves the others waiting in a collective until it times out.
    """

    def __init__(self) -> None:
        self._asked = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._ask)

    def agreed(self) -> bool:
        return any_rank(self._asked)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


@dataclass(frozen=True)
class Plan:
    """From which step to which, and what happens in between. None: never."""

    first: int
    last: int
    save_every: int | None
    evaluate_every: int | None
    held_out: Store | None


def train(
    plan: Plan,
    learner: Learner,
    *,
    telemetry: Telemetry,
    checkpoints: Checkpoints,
    stop: StopSignal,
    state: Callable[[int], dict[str, Any]],
) -> int:
    """Train; return the number of steps done, which is less than `plan.last` when stopped.

    Raises Diverged when the loss is not a number or no gradient has been for long.
    """
    skipped_in_a_row = 0
    saved = plan.first
    for number in range(plan.first, plan.last):
        began = now_s()
        result = learner.step(number)
        done = number + 1
        telemetry.stepped(done, result, now_s() - began)
        skipped_in_a_row = skipped_in_a_row + 1 if result.skipped else 0
        _check(result, done, saved, skipped_in_a_row)

        stopping = stop.agreed()
        if stopping and rank() == 0:
            print(f"stop asked: saving at step {done}", flush=True)
        if plan.held_out is not None and not stopping and _due(done, plan.evaluate_every, plan):
            telemetry.evaluated(done, learner.evaluate(plan.held_out))
        if stopping or _due(done, plan.save_every, plan):
            checkpoints.save(done, learner, state(done))
            saved = done
        if stopping:
            return done
    return plan.last


def _due(done: int, every: int | None, plan: Plan) -> bool:
    return every is not None and (done % every == 0 or done == plan.last)


def _check(result: StepResult, done: int, saved: int, skipped_in_a_row: int) -> None:
    last_good = f"checkpoint-{saved}" if saved else "no checkpoint"
    if not math.isfinite(result.loss):
        raise Diverged(
            f"Loss is NaN, training diverged! The loss of step {done} is {result.loss}; the last"
            f" good state is {last_good}. A lower learning_rate, a longer warmup or a look at the"
            " data of this step may help"
        )
    if skipped_in_a_row >= MAX_SKIPPED:
        raise Diverged(
            f"The gradients of {MAX_SKIPPED} steps in a row were not finite, so nothing has been"
            f" learned since step {done - MAX_SKIPPED}; the last good state is {last_good}"
        )
