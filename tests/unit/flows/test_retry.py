"""Waits double up to a cap, and go on for as long as something fails."""

from __future__ import annotations

from datetime import timedelta

from kit.history import at

from orchestrator.flows.retry import CAP_S, Backoff


def test_waits_double_up_to_a_cap_for_days() -> None:
    backoff, waits = Backoff(), list[float]()
    for failures in range(1, 3001):
        assert backoff.failed("start:1", at(0)) == failures
        waits.append(_wait_s(backoff))
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == CAP_S


def _wait_s(backoff: Backoff) -> float:
    tenths = range(400)
    return next(n / 10 for n in tenths if not backoff.waiting(at(0) + timedelta(seconds=n / 10)))
