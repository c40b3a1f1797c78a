"""A run goes on while its mirror is read: what is let go meanwhile is not damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kit.history import BOX, DIGEST, TRAINING, Told, acked, mirrored, run_of, sealed
from kit.plans import phase_plan, plan_of

from orchestrator.cli.verify import was_let_go
from orchestrator.core.keep import Keep
from orchestrator.views.verify import Verdict

GONE = ("the folder is gone",)
PRUNED: Told = (
    "checkpoint.pruned",
    {"instance": BOX, "name": "checkpoint-10", "generation": 1, "digest": DIGEST[10], "path": ""},
)


@pytest.mark.parametrize(
    ("told", "keep", "step", "is_there", "expected"),
    [
        ((PRUNED,), Keep(last=1), 10, False, True),
        ((), Keep(last=1), 10, False, True),
        ((), Keep(last=1), 10, True, False),
        ((), Keep(last=2), 10, False, False),
        ((), None, 10, False, False),
        ((), Keep(last=1), 20, False, False),
    ],
    ids=["on record", "in a moment", "damaged", "to be kept", "no policy", "the newest"],
)
def test_what_was_let_go(
    tmp_path: Path,
    told: tuple[Told, ...],
    keep: Keep | None,
    step: int,
    is_there: bool,
    expected: bool,
) -> None:
    steps = (each for step in (10, 20) for each in (sealed(step), mirrored(step), acked(step)))
    run = run_of(*TRAINING, *steps, *told)
    path = tmp_path / f"checkpoint-{step}"
    if is_there:
        path.mkdir()
    plan = plan_of(checkpoints=replace(phase_plan().checkpoints, keep=keep))
    assert was_let_go(run, plan, Verdict(path.name, str(path), DIGEST[step], 1, GONE)) is expected
