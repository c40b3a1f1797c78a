"""What a checkpoint is worth: read from what a box wrote, which may be anything."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.metrics import metrics_in_lines, metrics_of, usual_mode

STATE = {
    "global_step": 20,
    "best_metric": 1.5,
    "best_global_step": 20,
    "log_history": [
        {"step": 10, "epoch": 0.1, "loss": 9.0},
        {"step": 20, "epoch": 0.2, "loss": 2.0, "grad_norm": 1, "learning_rate": 1e-5},
        {"step": 20, "epoch": 0.2, "eval_loss": 1.5, "eval_runtime": 3.0},
    ],
}


def test_the_numbers_of_this_step() -> None:
    assert metrics_of(STATE, 20) == {
        "loss": 2.0, "grad_norm": 1.0, "learning_rate": 1e-5, "eval_loss": 1.5,
        "eval_runtime": 3.0, "best_metric": 1.5,
    }  # fmt: skip
    assert metrics_of(STATE, 10) == {"loss": 9.0}
    assert metrics_of(STATE, 30) == {}


@pytest.mark.parametrize(
    "state",
    [None, [], "x", {}, {"log_history": {}}, {"log_history": [1, None, [], {"step": "20"}]},
     {"log_history": [{"step": 20, "loss": math.nan, "a": math.inf, "b": True, "c": "1",
                       "d": 10**400, "x" * 65: 1.0, "new\nline": 1.0, "": 1.0}]}],
    ids=str,
)  # fmt: skip
def test_nonsense_is_no_metric(state: object) -> None:
    assert metrics_of(state, 20) == {}


def test_a_thousand_names_are_cut() -> None:
    line = {"step": 20, **{f"m{n}": float(n) for n in range(1000)}}
    assert len(metrics_of({"log_history": [line]}, 20)) == 32


def test_an_evaluation_is_not_cut_for_what_was_told_before_it() -> None:
    step = {"step": 4} | {f"gad/{each}": each for each in range(40)}
    lines = [json.dumps(each).encode() for each in (step, {"step": 4, "eval_agreement": 0.5})]
    found = metrics_in_lines(lines, 4)
    assert found["eval_agreement"] == 0.5
    assert len(found) == 32
    assert list(found)[:2] == ["gad/0", "gad/1"]


def test_lines() -> None:
    lines = [b'{"v":1,"step":20,"loss":2.5}', b"{torn", b"", b"[" * 100_000, b'{"step":10,"x":1}']
    assert metrics_in_lines(lines, 20) == {"loss": 2.5}


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["log_history", "step", "loss", "best_metric",
                                       "best_global_step"]) | st.text(max_size=3), inner),
    max_leaves=20,
))  # fmt: skip
def test_whatever_a_box_wrote_only_numbers_come_out(state: object) -> None:
    found = metrics_of(state, 20)
    assert all(isinstance(each, float) and math.isfinite(each) for each in found.values())
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("eval_loss", "min"), ("loss", "min"), ("val/word_error_rate", "min"),
        ("perplexity", "min"), ("eval_ppl", "min"), ("bpb", "min"), ("KL", "min"),
        ("socrates.wasserstein", "min"),
        ("eval_accuracy", "max"), ("reward", "max"), ("bleu", "max"), ("f1", "max"),
        ("glossary_hits", "max"), ("terror", "max"),
    ],
)  # fmt: skip
def test_the_words_of_the_name_say_which_is_better(name: str, mode: str) -> None:
    assert usual_mode(name) == mode
