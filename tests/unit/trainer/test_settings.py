"""A `train:` mapping: what is read, and that every mistake is named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remote.trainer.problems import TrainError
from remote.trainer.settings import Evaluation, Lora, load, parse

GOOD: dict[str, Any] = {"method": "sft", "model": "m", "data": ["a.jsonl"], "lora": True}


def test_reads_what_the_planner_writes() -> None:
    train = parse(
        {
            "method": "sft",
            "model": "m",
            "template": None,
            "data": ["a.parquet", "b.jsonl"],
            "qlora": None,
            "full": False,
            "deepspeed": {"zero_optimization": {"stage": 2}},
            "max_seq_length": 64,
            "packing": True,
            "loss_reduction": "tokens",
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj"]},
            "evaluate": {"data": "e.jsonl", "every": 5, "max_examples": 7},
            "args": {"max_steps": 3},
        }
    )
    assert train.train_files == ("a.parquet", "b.jsonl")
    assert train.lora == Lora(r=4, alpha=8, dropout=0.1, target_modules=("q_proj",))
    assert train.evaluation == Evaluation(("e.jsonl",), every=5, max_examples=7)
    assert (train.max_seq_length, train.packing, train.args) == (64, True, {"max_steps": 3})


@pytest.mark.parametrize(
    ("data", "files", "evaluation"),
    [
        ("a.jsonl", ("a.jsonl",), None),
        (["a.jsonl"], ("a.jsonl",), None),
        ({"train": "a.jsonl", "eval": None}, ("a.jsonl",), None),
        ({"train": ["a.jsonl"], "eval": ["b.jsonl"]}, ("a.jsonl",), Evaluation(("b.jsonl",))),
    ],
    ids=["text", "list", "mapping", "with-eval"],
)
def test_data_has_three_forms(data: Any, files: Any, evaluation: Any) -> None:
    train = parse({**GOOD, "data": data})
    assert (train.train_files, train.evaluation) == (files, evaluation)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"method": "dpo"}, "method: dpo is not supported yet"),
        ({"method": "gad"}, "method: gad is not supported yet"),
        ({"method": "magic"}, "method: must be one of sft, dpo, simpo, gad, not 'magic'"),
        ({"modle": "m"}, "modle: unknown key; did you mean model?"),
        ({"model": None}, "model: is missing"),
        ({"model": 3}, "model: must be a text"),
        ({"data": []}, "data: is missing"),
        ({"data": [1]}, "data: must be a text or a list of texts"),
        ({"data": {"eval": "x.jsonl"}}, "data.train: is missing"),
        ({"data": {"train": "x", "test": "y"}}, "data.test: unknown key"),
        ({"lora": None}, "lora: say lora (a mapping, or true) or full: true"),
        ({"full": True}, "full: lora and full exclude each other"),
        ({"lora": {"r": 0}}, "lora.r: must be a whole number of at least 1"),
        ({"lora": {"r": 4, "rank": 4}}, "lora.rank: r and rank are the same thing; give one"),
        ({"lora": {"dropout": 1}}, "lora.dropout: must be at least 0 and less than 1"),
        ({"lora": {"aplha": 1}}, "lora.aplha: unknown key; did you mean alpha?"),
        ({"qlora": True}, "qlora: not supported yet"),
        ({"loss_reduction": "sequences"}, "loss_reduction: only tokens is supported yet"),
        ({"deepspeed": "none.json"}, "deepspeed: none.json: cannot be read"),
        ({"deepspeed": 2}, "deepspeed: must be a path or a mapping"),
        ({"template": "none.jinja"}, "template: none.jinja is not a file"),
        ({"max_seq_length": True}, "max_seq_length: must be a whole number of at least 1"),
        ({"packing": "yes"}, "packing: must be true or false"),
        ({"args": []}, "args: must be a mapping"),
        ({"evaluate": {"every": 2}}, "evaluate.data: is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_the_key(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(TrainError) as caught:
        parse({**GOOD, **change})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(problem)


def test_names_everything_at_once() -> None:
    with pytest.raises(TrainError) as caught:
        parse({"method": "dpo", "packing": 1, "colour": "red", "max_seq_length": -1})
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert sorted(keys) == sorted(
        ["colour", "method", "data", "model", "lora", "max_seq_length", "packing"]
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "is not JSON"), ("[]", "must be a mapping"), (None, "cannot be read")],
    ids=["torn", "list", "absent"],
)
def test_load_says_what_is_wrong_with_the_file(
    tmp_path: Path, text: str | None, problem: str
) -> None:
    path = tmp_path / "train.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TrainError, match=problem):
        load(path)


def test_deepspeed_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    train = parse({**GOOD, "deepspeed": str(tmp_path / "ds.json")})
    assert train.deepspeed == {"zero_optimization": {"stage": 1}}
