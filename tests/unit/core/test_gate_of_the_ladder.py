"""The first gate of jobs/mahals/ladder.yaml over logs of its trainer's shape: what is healthy is GO
by step 200, what is not is NO-GO, and neither once in a while."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from kit.open_instruct_log import (
    BEFORE_TWO,
    KINDS,
    NOISE,
    Follower,
    healthy,
    log_of,
    preferred,
    read,
)
from kit.watches import curve, flat

from orchestrator.core.codec import from_json
from orchestrator.core.gate import Decision, Evidence, Gate, GateVerdict
from orchestrator.core.gate import judge as judge_gate
from orchestrator.core.health.falls import look
from orchestrator.core.health.judge import Finding, judge
from orchestrator.core.health.rule import Verdict
from orchestrator.core.health.series import points
from orchestrator.core.health.watch import Expect, Watch
from orchestrator.core.spec.job import Gate as GateModel

LADDER = Path(__file__).parents[3] / "jobs" / "mahals" / "ladder.yaml"
FIRST = yaml.safe_load(LADDER.read_text())["phases"][0]
GATE = from_json(Gate, GateModel.model_validate(FIRST["gate"]).model_dump(mode="json"))
STOP = FIRST["stop_after_steps"]
SEEDS = range(25)
# Logs of real runs, which are not ours to hand on: a folder of *.log files.
REAL = os.environ.get("GPUJOB_REAL_LOGS", "")


def findings(
    log: Follower, *, gpus: int | None = None, stop: int = STOP, ended: bool = False
) -> tuple[Finding, ...]:
    ranks = gpus or log.life.facts.processes or 1
    expect = Expect(gpus=ranks, stop_after_steps=stop)
    return judge(Watch(samples=log.samples, life=log.life, expect=expect, ended=ended))


def decide(log: Follower, gate: Gate = GATE, *, stop: int = STOP, ended: bool = False) -> Decision:
    found = findings(log, stop=stop, ended=ended)
    return judge_gate(gate, Evidence(log.samples, found, ended=ended, spent_usd=2.0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_goes_wrong_is_no_go(kind: str, seed: int) -> None:
    found = decide(read(log_of(KINDS[kind], seed=seed)))
    assert found.verdict is GateVerdict.NO_GO, found.reasons


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_run_is_go_by_step_200(seed: int) -> None:
    assert decide(read(log_of(healthy, seed=seed))).verdict is GateVerdict.GO


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_that_every_rank_prints_are_go_by_step_200(seed: int) -> None:
    log = read(log_of(preferred, seed=seed, noise=0.05, ranks=2))
    assert [each.step for each in log.samples] == list(range(1, 201))
    assert decide(log).verdict is GateVerdict.GO


def test_of_hundreds_of_flat_runs_hardly_one_is_go() -> None:
    """By the ends alone it was one in forty."""
    lucky = [
        look(
            points(curve(flat(NOISE, seed), steps=200)), start=0, percent=10, within=100, extend=200
        )
        for seed in range(400)
    ]
    assert sum(each.good for each in lucky) <= 2


def test_without_a_gradient_norm_its_rule_is_unobservable_and_no_pass() -> None:
    log = read(log_of(healthy))
    (m6,) = [each for each in findings(log, ended=True) if each.rule == "M6"]
    assert m6.verdict is Verdict.UNOBSERVABLE
    asked = Gate(GATE.loss_drop, no_red_flags=True, require=("grad_explosion",))
    assert decide(log, asked, ended=True).verdict is GateVerdict.INCONCLUSIVE


@pytest.mark.parametrize(("before", "gpus"), [("", 1), (BEFORE_TWO, 2)], ids=["one", "two"])
def test_at_no_moment_is_a_healthy_run_told_to_stop(before: str, gpus: int) -> None:
    """ZeRO's own lines come minutes after the one that says DEEPSPEED: those minutes were a red
    flag of every healthy run on several GPUs."""
    data = log_of(healthy, seed=3, **({"before": before} if before else {}))
    log, bad = Follower(), set()
    for at in range(0, len(data), 300):
        log.feed(data[at : at + 300])
        found = findings(log, gpus=gpus)
        bad |= {(each.rule, each.evidence.words) for each in found if each.verdict is Verdict.FAIL}
    assert not bad
    assert {each.rule: each.verdict for each in found}["M10"] is Verdict.PASS


@pytest.mark.skipif(not REAL, reason="GPUJOB_REAL_LOGS names no folder of real logs")
def test_real_logs_are_read_without_a_missed_step_and_go() -> None:
    logs = sorted(Path(REAL).glob("*.log"))
    assert logs
    for path in logs:
        data = path.read_bytes()
        there = {int(step) for step in re.findall(rb"Step: (\d+), LR", data)}
        log = read(data)
        assert {each.step for each in log.samples if each.loss is not None} == there, path.name
        last = min(STOP, max(there))  # one of them was stopped at step 90
        cut = Follower()
        cut.feed(data[: data.index(b"Step: %d, LR" % last) + 200])
        assert decide(cut, stop=last, ended=last < STOP).verdict is GateVerdict.GO, path.name
