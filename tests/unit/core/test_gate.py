"""GO, NO-GO, and the two ways not to know yet."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from kit.watches import curve, exploding, falling, flat, nan_at, rising, watch

from orchestrator.core.codec import from_json, to_json
from orchestrator.core.gate import (
    CostGate,
    Decision,
    EvaluationGate,
    Evidence,
    Gate,
    GateVerdict,
    LossDrop,
    MetricGate,
    is_expired,
    judge,
    verdict_key,
)
from orchestrator.core.health.judge import judge as judge_health
from orchestrator.core.signatures.samples import Sample
from orchestrator.core.spec.job import Gate as GateModel

GO, NO_GO = GateVerdict.GO, GateVerdict.NO_GO
OPEN, WAITING = GateVerdict.INCONCLUSIVE, GateVerdict.WAITING
LADDER = Gate(LossDrop(10, 100, 200), no_red_flags=True)
KEYS: dict[str, Any] = {"code": "c0ffee", "image": "img@1", "data": "d1"}


def decide(samples: tuple[Sample, ...], gate: Gate = LADDER, **told: Any) -> Decision:
    """As the flow does it: the rules judge first, then the gate."""
    ended = told.get("ended", False)
    stop = samples[-1].step if samples and ended else None
    findings = judge_health(watch(samples, ended=ended, stop_after_steps=stop, method="sft"))
    return judge(gate, Evidence(samples=samples, findings=findings, **told))


def noisy(percent: float, seed: int) -> tuple[Sample, ...]:
    return curve(falling(percent, noise=0.15, seed=seed), steps=200, grad_norm=1.0)


@pytest.mark.parametrize("seed", range(10))
def test_healthy_runs_are_go_by_step_200(seed: int) -> None:
    assert decide(noisy(25, seed)).verdict is GO


@pytest.mark.parametrize(
    ("samples", "ended"),
    [
        (curve(flat(noise=0.1, seed=1), steps=200), False),
        (curve(flat(), steps=200), False),
        (curve(rising(noise=0.1), steps=200), False),
        (curve(falling(7), steps=200), False),
        (curve(nan_at(120), steps=200), False),
        (curve(nan_at(60), steps=61), False),
        (curve(nan_at(60, 0.0), steps=61, grad_norm=lambda s: math.nan if s > 59 else 1.0), False),
        (curve(nan_at(60, math.inf), steps=61), False),
        (curve(exploding(), steps=200), False),
        (curve(falling(), steps=60, grad_norm=lambda s: 1e8 if s > 50 else 1.0), False),
        (curve(falling(), steps=200, grad_norm=0.0), True),
    ],
    ids=[
        *("flat, noise", "flat", "rising", "7 %", "nan", "nan early", "nan filtered", "inf"),
        *("exploding", "gradient explodes", "gradient vanishes"),
    ],
)
def test_runs_that_go_wrong_are_no_go(samples: tuple[Sample, ...], ended: bool) -> None:
    assert decide(samples, ended=ended).verdict is NO_GO


@pytest.mark.parametrize("seed", range(10))
def test_a_log_without_grad_norm_is_go_unless_it_is_asked_for(seed: int) -> None:
    samples = curve(falling(25, noise=0.15, seed=seed), steps=200)
    found = decide(samples)
    assert found.verdict is GO
    assert any(
        "M6" in reason.words and "cannot be observed" in reason.words for reason in found.reasons
    )
    asked = Gate(LossDrop(10, 100, 200), no_red_flags=True, require=("grad_explosion",))
    for ended, verdict in ((False, WAITING), (True, OPEN)):
        found = decide(samples, asked, ended=ended)
        assert found.verdict is verdict
        assert ("require grad_explosion", "unobservable") in {
            (reason.part, str(reason.verdict)) for reason in found.reasons
        }


@pytest.mark.parametrize(
    ("steps", "ended", "verdict", "until"),
    [
        (50, False, WAITING, 200),
        (150, False, WAITING, 200),
        (100, True, OPEN, 200),
        (0, False, WAITING, 200),
    ],
)
def test_undecided_is_extended_and_bounded(
    steps: int, ended: bool, verdict: GateVerdict, until: int
) -> None:
    found = decide(curve(falling(7), steps=steps), ended=ended)
    assert (found.verdict, found.until_step) == (verdict, until)


def test_a_phase_that_begins_later_is_judged_by_its_own_steps() -> None:
    samples = curve(lambda step: falling(25)(step - 2204), start=2204, steps=100)
    found = judge(Gate(LossDrop(10, 100)), Evidence(samples=samples, start_step=2204))
    assert found.verdict is GO
    early = judge(Gate(LossDrop(10, 100, 200)), Evidence(samples=samples[:50], start_step=2204))
    assert early.until_step == 2404


def test_a_loss_that_is_never_told_decides_nothing() -> None:
    samples = curve(steps=200)
    found = decide(samples, Gate(LossDrop(10, 100, 200)), ended=True)
    assert found.verdict is OPEN
    assert found.until_step is None


NOW, THEN = "evaluation/500/metrics.json", "evaluation/baseline/metrics.json"
EVALUATED = EvaluationGate(NOW, "wasserstein", THEN, 5.0, "min")


def evaluations(now: float, then: float = 0.2) -> dict[str, dict[str, float]]:
    return {NOW: {"wasserstein": now}, THEN: {"wasserstein": then}}


PARTS: list[tuple[str, Gate, dict[str, Any], GateVerdict]] = [
    ("nothing asked, running", Gate(), {}, WAITING),
    ("nothing asked, ended", Gate(), {"ended": True}, GO),
    ("metric good", Gate(metrics=(MetricGate("eval_loss", below=2),)), {"ended": True}, GO),
    ("metric bad", Gate(metrics=(MetricGate("eval_loss", below=1),)), {"ended": True}, NO_GO),
    ("metric bad so far", Gate(metrics=(MetricGate("eval_loss", below=1),)), {}, WAITING),
    ("metric above", Gate(metrics=(MetricGate("eval_loss", above=1),)), {"ended": True}, GO),
    ("metric nan", Gate(metrics=(MetricGate("bleu", below=9),)), {"ended": True}, NO_GO),
    ("metric never written", Gate(metrics=(MetricGate("rouge", above=1),)), {"ended": True}, OPEN),
    (
        "metric too early",
        Gate(metrics=(MetricGate("eval_loss", below=2, from_step=500),)),
        {"ended": True},
        OPEN,
    ),
    (
        "evaluated",
        Gate(evaluation=EVALUATED),
        {"evaluations": evaluations(0.18), "ended": True},
        GO,
    ),
    (
        "4.5 %",
        Gate(evaluation=EVALUATED),
        {"evaluations": evaluations(0.191), "ended": True},
        NO_GO,
    ),
    (
        "nan",
        Gate(evaluation=EVALUATED),
        {"evaluations": evaluations(math.nan), "ended": True},
        NO_GO,
    ),
    ("no file yet", Gate(evaluation=EVALUATED), {}, WAITING),
    ("no file", Gate(evaluation=EVALUATED), {"ended": True}, OPEN),
    ("no baseline", Gate(evaluation=EVALUATED), {"evaluations": {NOW: {}}, "ended": True}, OPEN),
    ("cost within", Gate(cost=CostGate(45)), {"spent_usd": 45.0, "ended": True}, GO),
    ("cost above", Gate(cost=CostGate(45)), {"spent_usd": 45.01}, NO_GO),
    ("cost unknown", Gate(cost=CostGate(45)), {"ended": True}, OPEN),
    ("asks", Gate(approve=True), {"ended": True}, WAITING),
    ("approved", Gate(approve=True), {"ended": True, "approved": True}, GO),
    ("refused", Gate(approve=True), {"ended": True, "approved": False}, NO_GO),
    ("no such rule", Gate(require=("M99",)), {"ended": True}, OPEN),
    ("rule passes", Gate(require=("M5",)), {"ended": True}, GO),
    ("rule by an also", Gate(require=("S16",)), {"ended": True}, GO),
    ("rule warns", Gate(require=("F4",)), {"ended": True}, NO_GO),
]


@pytest.mark.parametrize(
    ("gate", "told", "verdict"), [row[1:] for row in PARTS], ids=[row[0] for row in PARTS]
)
def test_each_part_of_a_gate(gate: Gate, told: dict[str, Any], verdict: GateVerdict) -> None:
    samples = curve(flat(), steps=260, every=5, eval_loss=1.5, bleu=nan_at(200))
    found = decide(samples, gate, **told)
    assert found.verdict is verdict, found.reasons


def test_a_person_is_not_asked_about_what_has_failed() -> None:
    gate = Gate(LossDrop(10, 100, 200), approve=True)
    for said in (None, True):
        assert decide(curve(rising(), steps=200), gate, approved=said).verdict is NO_GO


def test_every_reason_is_told_and_the_failing_rule_is_named() -> None:
    found = decide(curve(rising(), steps=200))
    words = {reason.part: reason.words for reason in found.reasons}
    assert set(words) == {"loss_drop", "no_red_flags"}
    assert "M1" in words["no_red_flags"]
    assert "by step 200" in words["loss_drop"]


def test_the_job_files_gate_is_the_cores_gate() -> None:
    text = {
        "loss_drop": {"percent": 10, "within_steps": 100, "extend_to": 200},
        "no_red_flags": True,
        "require": ["M10"],
        "metrics": [{"metric": "eval_loss", "below": 1.2, "from_step": 500}],
        "evaluation": {
            "file": NOW,
            "baseline": THEN,
            "metric": "wasserstein",
            "improve_percent": 5,
            "confident": True,
            "least_parse_rate": 0.95,
        },
        "cost": {"usd": 45},
        "approve": True,
    }
    model = json.loads(GateModel.model_validate(text).model_dump_json())
    gate = from_json(Gate, model)
    assert to_json(gate) == model
    assert gate.evaluation is not None and gate.evaluation.least_parse_rate == 0.95
    assert to_json(from_json(Gate, {})) == json.loads(GateModel().model_dump_json())


CONFIG: dict[str, Any] = {"lr": 1e-5, "gpus": 1, "deep": {"num_gpus": 1, "model": "m"}}


@pytest.mark.parametrize(
    ("config", "keys", "same"),
    [
        (CONFIG, {}, True),
        ({**CONFIG, "gpus": 8}, {}, True),
        ({**CONFIG, "deep": {"num_gpus": 8, "model": "m"}}, {}, True),
        ({**CONFIG, "use_8bit_optimizer": False}, {}, True),
        (dict(reversed(CONFIG.items())), {}, True),
        ({**CONFIG, "lr": 2e-5}, {}, False),
        ({**CONFIG, "deep": {"num_gpus": 1, "model": "n"}}, {}, False),
        (CONFIG, {"code": "beef"}, False),
        (CONFIG, {"image": "img@2"}, False),
        (CONFIG, {"data": "d2"}, False),
    ],
    ids=range(10),
)
def test_a_verdict_expires_when_what_it_was_about_changes(
    config: dict[str, Any], keys: dict[str, str], same: bool
) -> None:
    decision = decide(noisy(25, 0), key=verdict_key(CONFIG, **KEYS))
    assert is_expired(decision, verdict_key(config, **{**KEYS, **keys})) is not same


def test_what_nobody_can_tell_a_person_may_at_the_end() -> None:
    gate = Gate(metrics=(MetricGate("eval_loss", below=1.0),))
    assert judge(gate, Evidence(ended=True)).verdict is OPEN
    assert judge(gate, Evidence(ended=False, approved=True)).verdict is WAITING
    said = judge(gate, Evidence(ended=True, approved=True, key="k"))
    assert (said.verdict, said.key, said.reasons[-1].part) == (GO, "k", "approve")
