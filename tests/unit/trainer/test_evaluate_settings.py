"""EVAL.json: every problem at once, and the defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remote.trainer.evaluate.main import main
from remote.trainer.evaluate.settings import Sampling, load, parse
from remote.trainer.problems import TrainError

LEAST = {"model": "m", "output": "out", "loss": {"data": "a.jsonl"}}


def test_defaults() -> None:
    found = parse({**LEAST, "generate": {"data": ["b"]}, "socrates": {"data": ["c", "d"]}})
    assert (found.max_seq_length, found.batch_size, found.seed, found.bf16) == (2048, 8, 42, False)
    assert (found.checkpoint, found.baseline) == (None, False)
    assert found.loss is not None
    assert found.loss.files == ("a.jsonl",)
    assert found.generate is not None
    assert found.generate.sampling == Sampling(256, 0.0, 1.0)
    assert found.socrates is not None
    assert found.socrates.sampling == Sampling(16, 0.6, 0.9)
    assert (found.socrates.resamples, found.socrates.improvement) == (1000, 0.05)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": None}, "model: is missing"),
        ({"output": 3}, "output: must be a text"),
        ({"modle": "x"}, "modle: unknown key; did you mean model?"),
        ({"checkpoint": "/none"}, "checkpoint: /none is not a folder"),
        ({"template": "/none"}, "template: /none is not a file"),
        ({"baseline": True}, "baseline: needs a checkpoint to compare with"),
        ({"baseline": 3}, "baseline: must be a text"),
        ({"baseline": "/tmp"}, "baseline: must be true, or a folder with an earlier evaluation"),
        ({"loss": {}}, "evaluation: says nothing to do"),
        ({"loss": {"files": "x"}}, "loss.files: unknown key"),
        ({"loss": {"max_examples": 4}}, "loss.data: is missing"),
        ({"batch_size": 0}, "batch_size: must be a whole number"),
        ({"seed": -1}, "seed: must be a whole number of at least 0"),
        ({"generate": {"data": "x", "temperature": -1}}, "generate.temperature: must not be"),
        ({"socrates": {"data": "x", "top_p": 0}}, "socrates.top_p: must be more than 0"),
        ({"socrates": {"data": "x", "columns": {"tsk": "t"}}}, "socrates.columns.tsk: unknown key"),
        ({"socrates": {"data": "x", "columns": {"task": 3}}}, "socrates.columns.task: must be"),
    ],
)
def test_problems(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(TrainError) as caught:
        parse({**LEAST, **changes})
    assert any(each.startswith(problem) for each in caught.value.problems), caught.value.problems


def test_all_problems_at_once() -> None:
    with pytest.raises(TrainError) as caught:
        parse({"seed": "x", "bf16": 1})
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("content", "problem"), [("{", "is not JSON"), ("[]", "must be a mapping")]
)
def test_files_that_are_none(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "eval.json"
    path.write_text(content)
    with pytest.raises(TrainError, match=problem):
        load(path)


def test_the_command_says_what_is_wrong_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps({**LEAST, "modle": 1}))
    assert main([str(path)]) == 2
    assert capsys.readouterr().err == "error: modle: unknown key; did you mean model?\n"
    assert main([str(tmp_path / "none.json")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err
