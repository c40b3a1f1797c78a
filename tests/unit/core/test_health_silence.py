"""Silence means one thing while tokenising and another while training."""

from __future__ import annotations

import pytest
from kit.watches import curve, flat, watch

from orchestrator.core.health.rule import Verdict, apply
from orchestrator.core.health.rules import RULES
from orchestrator.core.health.silence import BUDGETS_S, budget_s, is_active
from orchestrator.core.health.watch import Quiet
from orchestrator.core.signatures.lifecycle import Doing, Life

HANG = next(rule for rule in RULES if rule.id == "M7")
IDLE = {"gpu_percent": 0.0, "cpu_percent": 1.0, "disk_bytes_per_s": 0.0}


@pytest.mark.parametrize("doing", BUDGETS_S, ids=str)
def test_every_phase_has_a_budget_and_an_idle_machine_beyond_it_hangs(doing: Doing) -> None:
    limit = BUDGETS_S[doing]
    for silent, verdict in ((limit, Verdict.PASS), (limit + 1, Verdict.FAIL)):
        judgement = apply(HANG, watch(life=Life(doing), quiet=Quiet(silent, silent, **IDLE)))
        assert judgement is not None and judgement[0] is verdict


def test_every_phase_but_the_end_has_a_budget() -> None:
    assert set(BUDGETS_S) == set(Doing) - {Doing.DONE}


@pytest.mark.parametrize(
    "sign",
    [
        {"gpu_percent": 6.0},
        {"cpu_percent": 51.0},
        {"disk_bytes_per_s": 1000000.0},
        {"network_bytes_per_s": 1000000.0},
        {"network_bytes_per_s": 1000000.0},
    ],
    ids=str,
)
def test_a_machine_that_works_is_no_hang(sign: dict[str, float]) -> None:
    quiet = Quiet(1e6, 1e6, **{**IDLE, **sign})
    judgement = apply(HANG, watch(life=Life(Doing.TOKENISE), quiet=quiet))
    assert judgement is not None and judgement[0] is Verdict.WARN


@pytest.mark.parametrize(
    ("quiet", "active"),
    [
        (Quiet(), None),
        (Quiet(gpu_percent=0.0), None),
        (Quiet(cpu_percent=0.0), None),
        (Quiet(gpu_percent=0.0, cpu_percent=0.0), False),
        (Quiet(gpu_percent=None, cpu_percent=90.0), True),
        (Quiet(network_bytes_per_s=1e6), True),
    ],
    ids=range(6),
)
def test_unknown_is_not_idle(quiet: Quiet, active: bool | None) -> None:
    assert is_active(quiet) is active


def test_long_steps_have_a_longer_budget_and_so_has_the_job_file() -> None:
    assert budget_s(watch(curve(flat(), steps=30, step_s=12))) == 300
    assert budget_s(watch(curve(flat(), steps=30, step_s=60))) == 600
    assert budget_s(watch(curve(flat(), steps=30, step_s=12), hang_s=1200.0)) == 1200


def test_a_bar_that_stands_still_is_a_hang_though_it_is_drawn_again() -> None:
    caching = Life(Doing.CACHING_REF)
    stands = watch(life=caching, quiet=Quiet(1.0, bar_still_s=601.0, **IDLE))
    moves = watch(life=caching, quiet=Quiet(601.0, bar_still_s=1.0, **IDLE))
    verdicts = [judged[0] for each in (stands, moves) if (judged := apply(HANG, each))]
    assert verdicts == [Verdict.FAIL, Verdict.PASS]
