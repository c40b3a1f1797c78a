"""Files and reports that trainers write for programs, and how sources are put together."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest

from orchestrator.core.signatures.samples import Sample, effective, merge
from orchestrator.core.signatures.structured import (
    metrics_lines,
    progress_report,
    trainer_log_lines,
    trainer_state,
)

STATE = {
    "global_step": 20,
    "max_steps": 40,
    "log_history": [
        {"step": 10, "loss": 2.4561234, "grad_norm": 0.85, "learning_rate": 1e-5, "epoch": 0.25},
        {"step": 10, "eval_loss": 2.5, "eval_runtime": 1.0},
        {"step": 20, "loss": math.nan},
        {"loss": 1.0},
        "no object",
    ],
}


def test_a_trainer_state_has_steps_and_all_digits() -> None:
    found = trainer_state(json.dumps(STATE))
    assert [(s.step, s.loss) for s in found[:2]] == [(10, 2.4561234), (10, None)]
    assert found[1].values == {"eval_loss": 2.5, "eval_runtime": 1.0}
    assert math.isnan(found[2].loss or 0)
    assert {s.max_steps for s in found} == {40}
    assert len(found) == 3


def test_our_own_lines() -> None:
    line = (
        '{"v": 1, "step": 5, "at": "2026-01-01T00:00:00.250Z", "max_steps": 9, "loss": NaN,'
        ' "grad_norm": 1.5, "learning_rate": 1e-05, "tokens_per_s": 812.5}'
    )
    (found,) = metrics_lines([line.encode()])
    assert (found.step, found.max_steps, found.tokens_per_s) == (5, 9, 812.5)
    assert math.isnan(found.loss or 0)
    assert found.at == datetime(2026, 1, 1, microsecond=250_000, tzinfo=UTC)
    assert not found.values


def test_llama_factory() -> None:
    line = (
        '{"current_steps": 10, "total_steps": 100, "loss": 1.5, "lr": 2e-05, "epoch": 0.1,'
        ' "percentage": 10.0, "elapsed_time": "0:01:00", "remaining_time": "0:09:00"}'
    )
    (found,) = trainer_log_lines([line])
    assert (found.step, found.loss, found.learning_rate) == (10, 1.5, 2e-5)
    assert (found.max_steps, found.values) == (100, {"percentage": 10.0})


def test_the_progress_report_of_transformers() -> None:
    told = {"loss": "nan", "learning_rate": "1e-05", "current_step": "12", "total_steps": "40"}
    body = {
        "trainerStatus": {
            "lastUpdatedTime": "2026-01-01T00:00:00+00:00",
            "progressPercentage": 30,
            "estimatedRemainingSeconds": 90,
            "metrics": [{"name": name, "value": value} for name, value in told.items()],
        }
    }
    report = progress_report(json.dumps(body))
    assert report is not None and report.sample is not None
    assert (report.percent, report.remaining_s) == (30, 90)
    assert (report.sample.step, report.sample.max_steps) == (12, 40)
    assert math.isnan(report.sample.loss or 0)


def test_the_first_report_is_a_sign_of_life_without_a_sample() -> None:
    report = progress_report('{"trainerStatus": {"progressPercentage": 0}}')
    assert report is not None
    assert report.sample is None


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"log_history": 5}'),
        *(b'{"trainerStatus": 1}', b'{"step": -1, "loss": 1}', b'{"step": "x", "loss": 1}'),
        *(b'{"step": 1e999, "loss": 1}', b'{"step": true, "loss": 1}', b'{"step": 1, "loss": "x"}'),
    ],
    ids=range(14),
)
def test_what_does_not_fit_is_left_out(data: bytes) -> None:
    assert trainer_state(data) == []
    assert metrics_lines([data]) == []
    assert trainer_log_lines([data]) == []
    report = progress_report(data)
    assert report is None or report.sample is None


def at(*steps: int, source: str = "a", loss: float = 1.0) -> list[Sample]:
    return [Sample(source, step, loss=loss) for step in steps]


def test_the_better_source_counts_and_the_other_fills_it() -> None:
    best = [Sample("state", 1, loss=1.2345, learning_rate=1e-5)]
    console = [Sample("console", 1, loss=1.235, grad_norm=0.5, offset=7), Sample("console", 2)]
    first, second = merge(best, console)
    assert (first.source, first.loss, first.grad_norm, first.offset) == ("state", 1.2345, 0.5, 7)
    assert second.source == "console"


def test_steps_that_a_later_attempt_made_again_replace_those_of_the_first() -> None:
    samples = at(1, 2, 3, 4, 5) + at(3, 4, loss=2.0)
    assert [(s.step, s.loss) for s in effective(samples)] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_samples_without_a_step_are_kept_at_the_end() -> None:
    found = merge([Sample("a", None, loss=9.0), Sample("a", 1, loss=1.0)])
    assert [s.step for s in found] == [1, None]


def test_a_better_source_that_is_behind_leaves_the_rest_to_the_other() -> None:
    merged = merge(at(1, 2, source="state"), at(1, 2, 3, source="console"))
    assert [s.source for s in merged] == ["state", "state", "console"]
