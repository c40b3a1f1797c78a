"""Which phases a rule concerns."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.health.watch import Watch


def methods(*names: str) -> Callable[[Watch], bool]:
    return lambda watch: watch.expect.method in names


def falls(watch: Watch) -> bool:
    """A discriminator's game has no loss that must fall; its warm-up has."""
    return watch.expect.method != "gad"


def resumes(watch: Watch) -> bool:
    return watch.expect.resume_step is not None


def on_many(watch: Watch) -> bool:
    return watch.expect.gpus > 1


def is_larger(watch: Watch) -> bool:
    """On more GPUs than the rung before."""
    before = watch.expect.previous
    return before is not None and watch.expect.gpus > before.gpus


def is_gad(watch: Watch) -> bool:
    return watch.expect.method in ("gad", "gad_warmup")


def is_evaluated(watch: Watch) -> bool:
    return watch.evaluated is not None


def is_short(watch: Watch) -> bool:
    """A test that is stopped so soon, and logs so seldom, that two windows would be one."""
    if watch.expect.stop_after_steps is None:
        return False
    return 3 <= len(watch.losses) <= 10 and (watch.ended or stopped(watch))


def stopped(watch: Watch) -> bool:
    stop = watch.expect.stop_after_steps
    return stop is not None and watch.reached >= stop
