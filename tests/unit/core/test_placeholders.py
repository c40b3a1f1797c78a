"""Only the listed words are replaced; every other brace belongs to the user."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.placeholders import NAMES, fill, fill_all, placeholders


def values(**changes: object) -> dict[str, str]:
    given_values: dict[str, object] = {
        "gpus": 4,
        "nodes": 1,
        "run_id": "r1",
        "phase": "main",
        "checkpoints_path": "out",
        "checkpoint": "out/checkpoint-20",
        "resume_args": "--resume {checkpoint} --from {checkpoints.path}",
    }
    return placeholders(**{**given_values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("deepspeed --num_gpus {gpus}", "deepspeed --num_gpus 4", id="gpus"),
        pytest.param("{nodes}/{run_id}/{phase}", "1/r1/main", id="several"),
        pytest.param("t {resume}", "t --resume out/checkpoint-20 --from out", id="resume"),
        pytest.param("ls {checkpoints.path}/x", "ls out/x", id="checkpoints.path"),
        pytest.param("${gpus} ${HOME}", "${gpus} ${HOME}", id="shell variables"),
        pytest.param("echo '{\"gpus\": 1}'", "echo '{\"gpus\": 1}'", id="json"),
        pytest.param("awk '{print $1}' {a,b}", "awk '{print $1}' {a,b}", id="awk and brace lists"),
        pytest.param("{unknown} { gpus } {}", "{unknown} { gpus } {}", id="other braces"),
        pytest.param("{{gpus}}", "{4}", id="no escaping language"),
    ],
)
def test_fill(text: str, expected: str) -> None:
    assert fill(text, values()) == expected


def test_with_nothing_to_resume_both_words_are_empty() -> None:
    assert fill("t [{resume}] [{checkpoint}]", values(checkpoint=None)) == "t [] []"


def test_a_value_is_not_searched_again() -> None:
    assert fill("{checkpoint}", values(checkpoint="{gpus}")) == "{gpus}"


def test_a_known_word_without_a_value_stays() -> None:
    assert fill("{gpus} {phase}", {"gpus": "2"}) == "2 {phase}"


def test_fill_all_reaches_every_text_and_leaves_the_rest() -> None:
    filled = fill_all({"a{gpus}": ["{gpus}", 3, None, {"b": "x{gpus}"}], "c": 1.5}, values())
    assert filled == {"a{gpus}": ["4", 3, None, {"b": "x4"}], "c": 1.5}


@given(st.text())
def test_text_without_a_placeholder_is_unchanged(text: str) -> None:
    if not any("{" + name + "}" in text for name in NAMES):
        assert fill(text, values()) == text
