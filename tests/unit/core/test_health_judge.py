"""From verdicts to actions: the job file's words, rules of the user's own, the documentation."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from kit.watches import curve, falling, flat, nan_at, watch

from orchestrator.core.health.evaluation import Question, compare
from orchestrator.core.health.judge import fired, judge
from orchestrator.core.health.ladder import next_rung
from orchestrator.core.health.rule import Verdict
from orchestrator.core.health.rules import RULES
from orchestrator.core.health.user import DEFAULTS, OwnRule, Wishes, judge_own, wishes
from orchestrator.core.health.watch import Fault
from orchestrator.core.signatures.faults import Kind
from orchestrator.core.spec.job import Gate, Health

ROOT = Path(__file__).parents[3]
OOM = Fault(Kind.GPU_OOM, 7, "CUDA out of memory")


def test_the_flags_of_the_job_file_and_of_the_rules_are_one() -> None:
    model = Health().model_dump()
    assert model.pop("rules") == ()
    assert model == dict(DEFAULTS)
    assert {rule.flag for rule in RULES} == set(DEFAULTS)


@pytest.mark.parametrize("action", ["warn", "stop", "ask"])
def test_a_failing_rule_asks_for_what_the_job_file_says(action: Any) -> None:
    findings = judge(watch(curve(nan_at(50))), Wishes({"nan": action}))
    (nan,) = [each for each in findings if each.rule == "M5"]
    assert (nan.verdict, nan.action, nan.flag) == (Verdict.FAIL, action, "nan")
    assert nan.advice


def test_off_is_not_judged_at_all() -> None:
    findings = judge(watch(curve(nan_at(50))), Wishes({"nan": "off"}))
    assert not [each for each in findings if each.flag == "nan"]


def test_the_mildest_verdict_that_acts_is_the_rules_own() -> None:
    wanted = Wishes({"low_gpu": "stop", "loss_flat": "stop"})
    seen = watch(curve(falling(7), steps=200), gpus_seen=[40])
    actions = {each.rule: (each.verdict, each.action) for each in judge(seen, wanted)}
    assert actions["F2"] == (Verdict.WARN, "stop")  # it never fails: warn is all it can say
    assert actions["M2"] == (Verdict.WARN, "warn")
    assert actions["M1"] == (Verdict.PASS, None)


def test_the_gravest_comes_first() -> None:
    findings = judge(watch(curve(nan_at(50)), faults=(OOM,), gpus_seen=[10]))
    acting = [each.action for each in fired(findings)]
    assert acting == sorted(acting, key=["stop", "ask", "warn"].index)
    assert {"M5", "M4", "F2"} <= {each.rule for each in fired(findings)}


def test_a_healthy_run_asks_for_nothing() -> None:
    samples = curve(falling(noise=0.1), grad_norm=1.0, tokens_per_s=2000.0)
    findings = judge(watch(samples, gpus_seen=[95, 93]))
    assert not fired(findings)
    assert len(findings) > 15


def test_the_same_observation_gives_the_same_findings() -> None:
    seen = watch(curve(falling(noise=0.1), grad_norm=1.0), faults=(OOM,))
    assert judge(seen) == judge(seen)


RULES_YAML: list[dict[str, Any]] = [
    {"metric": "critic/d_acc", "above": 0.95, "for_steps": 100, "action": "ask"},
    {"metric": "loss", "below": 0.1, "name": "too good"},
]


def test_the_model_of_the_job_file_becomes_wishes() -> None:
    model = Health.model_validate({"hang": "ask", "rules": RULES_YAML})
    found = wishes(json.loads(model.model_dump_json()))
    assert found.action("hang") == "ask"
    assert found.action("nan") == "stop"
    assert found.own == (
        OwnRule("critic/d_acc", above=0.95, for_steps=100, action="ask"),
        OwnRule("loss", below=0.1, name="too good"),
    )
    assert [each.id for each in found.own] == ["critic/d_acc above 0.95", "too good"]


@pytest.mark.parametrize(
    "rule",
    [
        {"metric": "x"},
        {"metric": "x", "above": 1.0, "below": 2.0},
        {"above": 1.0},
        {"metric": "x", "above": float("inf")},
        {"metric": "x", "above": 1.0, "for_steps": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", [Health, Gate], ids=["rules", "metrics"])
def test_a_rule_of_ones_own_has_one_limit(model: Any, rule: dict[str, Any]) -> None:
    key = "rules" if model is Health else "metrics"
    with pytest.raises(ValueError):
        model.model_validate({key: [rule]})


ABOVE = OwnRule("critic/d_acc", above=0.95, for_steps=100)


@pytest.mark.parametrize(
    ("rule", "values", "steps", "verdict"),
    [
        (ABOVE, 0.97, 100, Verdict.FAIL),
        (ABOVE, 0.97, 99, Verdict.INCONCLUSIVE),
        (ABOVE, 0.95, 100, Verdict.PASS),
        (ABOVE, lambda step: 0.9 if step == 60 else 0.97, 100, Verdict.PASS),
        (ABOVE, lambda step: 0.9 if step == 60 else 0.97, 200, Verdict.FAIL),
        (OwnRule("critic/d_acc", below=0.5), 0.4, 1, Verdict.FAIL),
        (OwnRule("critic/d_acc", below=0.5), 0.5, 1, Verdict.PASS),
        (OwnRule("other", above=1), 0.5, 9, Verdict.UNOBSERVABLE),
    ],
    ids=range(8),
)
def test_a_rule_of_ones_own(rule: OwnRule, values: Any, steps: int, verdict: Verdict) -> None:
    seen = watch(curve(steps=steps, **{"critic/d_acc": values}))
    assert judge_own(rule, seen)[0] is verdict
    (found,) = [each for each in judge(seen, Wishes(own=(rule,))) if each.flag == "rules"]
    assert found.action == ("warn" if verdict is Verdict.FAIL else None)


def test_a_rule_of_ones_own_that_saw_nothing_yet_waits() -> None:
    assert judge_own(ABOVE, watch())[0] is Verdict.INCONCLUSIVE


def cells(*values: float) -> dict[str, float]:
    return {str(n): value for n, value in enumerate(values)}


QUESTION = Question("wasserstein", 5, "min", confident=True)
THEN = {"wasserstein": 0.2, "cells": cells(0.2, 0.21, 0.19, 0.2), "parse_rate": 1.0}


@pytest.mark.parametrize(
    ("now", "question", "verdict"),
    [
        ({"wasserstein": 0.18, "cells": cells(0.18, 0.19, 0.17, 0.18)}, QUESTION, Verdict.PASS),
        (
            {"wasserstein": 0.18, "cells": cells(0.05, 0.4, 0.07, 0.2)},
            QUESTION,
            Verdict.INCONCLUSIVE,
        ),
        ({"wasserstein": 0.18, "cells": cells(0.18)}, QUESTION, Verdict.INCONCLUSIVE),
        ({"wasserstein": 0.22}, QUESTION, Verdict.FAIL),
        ({"wasserstein": 0.19001}, Question("wasserstein", 5, "min"), Verdict.FAIL),
        ({"wasserstein": 0.18999}, Question("wasserstein", 5, "min"), Verdict.PASS),
        ({"wasserstein": 0.18, "uniform": 0.17}, Question("wasserstein", 5, "min"), Verdict.FAIL),
        (
            {"wasserstein": 0.18},
            Question("wasserstein", 5, least_parse_rate=0.9),
            Verdict.UNOBSERVABLE,
        ),
        ({"wasserstein": float("nan")}, QUESTION, Verdict.FAIL),
        ({"wasserstein": True}, QUESTION, Verdict.UNOBSERVABLE),
        ({}, QUESTION, Verdict.UNOBSERVABLE),
    ],
    ids=range(11),
)
def test_an_evaluation_against_its_baseline(
    now: dict[str, Any], question: Question, verdict: Verdict
) -> None:
    found = compare(now, THEN, Question(**{**vars(question), "mode": "min"}))
    assert found[0] is verdict, found[1].words


def test_the_better_direction_is_that_of_the_metrics_name() -> None:
    then, now = {"accuracy": 0.6, "eval_loss": 1.0}, {"accuracy": 0.7, "eval_loss": 0.9}
    for name in ("accuracy", "eval_loss"):
        assert compare(now, then, Question(name, 5))[0] is Verdict.PASS
        assert compare(then, now, Question(name, 5))[0] is Verdict.FAIL


def test_the_memory_ladder_keeps_the_batch_and_asks_before_it_changes_the_result() -> None:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "gradient_checkpointing": False,
        "use_liger_kernel": False,
        "max_seq_length": 2048,
        "use_qlora": False,
        "lora_rank": 16,
        "gpu_memory_utilization": 0.7,
        "ppo_max_token_len_per_gpu": 12288,
    }
    taken = []
    while rung := next_rung(settings):
        taken.append((next(iter(rung.changes)), rung.asks))
        settings |= rung.changes
        assert (
            settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] == 16
        )
    assert taken == [
        ("PYTORCH_CUDA_ALLOC_CONF", False),
        ("gpu_memory_utilization", False),
        ("ppo_max_token_len_per_gpu", False),
        ("per_device_train_batch_size", False),
        ("gradient_checkpointing", False),
        ("use_liger_kernel", False),
        ("max_seq_length", True),
        ("use_qlora", True),
        ("lora_rank", True),
    ]
    assert settings["ppo_max_token_len_per_gpu"] >= 3584


def test_the_documentation_has_a_row_for_every_rule_and_flag() -> None:
    text = (ROOT / "docs" / "health.md").read_text()
    rows = re.findall(r"^\| ((?:[MSFGT]\d+b?(?:, )?)+) \| `(\w+)` \|", text, flags=re.MULTILINE)
    documented = {(one, flag) for ids, flag in rows for one in ids.split(", ")}
    assert documented == {(one, r.flag) for r in RULES for one in (r.id, *r.also)}
    starred = re.findall(r"^\| (\w+)[^|]*(?:\|[^|]*){3}\|[^|]*warn\*", text, flags=re.MULTILINE)
    assert set(starred) == {rule.id for rule in RULES if rule.acts is Verdict.WARN}
    flags = set(re.findall(r"^\| `(\w+)` \| (?:stop|warn|restart) \|", text, flags=re.MULTILINE))
    assert flags == set(DEFAULTS)


def test_what_is_no_number_is_within_no_limit() -> None:
    own = OwnRule("eval_loss", above=3.0, for_steps=5)
    seen = watch(curve(flat(), steps=10, eval_loss=math.nan))
    (found,) = judge(seen, Wishes(own=(own,)), rules=())
    assert found.verdict is Verdict.FAIL
