"""Has the loss fallen enough? Two looks, at fixed steps, so that the answer does not depend on
when somebody happened to look: an early one, and a last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.health.series import Drop, Point, between, drop, surety

# A drop within twice its own error may be noise; and since of a hundred flat runs one or two have
# such a drop between their ends, the line through all of the points must fall surely too.
SURE, SURE_LINE = 2.0, 3.0


@dataclass(frozen=True)
class Look:
    """`good`: far enough and no noise. `last`: there is no later look. `until`: the step at which
    one can know more."""

    good: bool
    last: bool
    drop: Drop | None
    until: int | None
    words: str


def look(
    curve: Sequence[Point],
    *,
    start: int,
    percent: float,
    within: int,
    extend: int | None = None,
    ended: bool = False,
) -> Look:
    """What the first `within` steps after `start`, and else those until `extend`, say.

    Why not earlier and not once: of four healthy real runs that were measured, with means of 20
    steps, one fell 10 % within 100 steps and all by 200; their warm-up may last until 350. A run
    that `ended` between two looks is looked at where it ended: far enough is far enough."""
    reached = curve[-1][0] - start if curve else 0
    looks = [within] if extend is None or extend <= within else [within, extend]
    due = [at for at in looks if at <= reached]
    if ended and len(due) < len(looks) and reached > 0:
        due.append(reached)
    found = None
    for at in due:
        found = _judge(curve, start, at, percent)
        if found.good or at == looks[-1]:
            return found
    later = next(at for at in looks if at > reached)
    words = f"{found.words}; " if found else f"step {reached}; "
    until = start + later
    return Look(False, False, found.drop if found else None, until, f"{words}next look at {until}")


def _judge(curve: Sequence[Point], start: int, at: int, percent: float) -> Look:
    found = drop(between(curve, start, start + at), start=start)
    if found is None:
        words = f"too few points by step {at} to compare its ends"
        return Look(False, True, None, None, words)
    words = (
        f"{found.first:.4g} -> {found.last:.4g}, {found.percent:+.1f} % less by step {at}"
        f" (at least {percent:g} % asked)"
    )
    line = surety(between(curve, start, start + at))
    sure = found.percent >= SURE * found.error_percent and (line is None or line >= SURE_LINE)
    if found.percent >= percent and not sure:
        words += f", but the noise alone is {found.error_percent:.1f} %"
        words += (
            f" and the line through all points falls by {line:.1f} of its errors" if line else ""
        )
    return Look(found.percent >= percent and sure, True, found, None, words)
