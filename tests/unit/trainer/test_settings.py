"""A `train:` mapping: what is read, and that every mistake is named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remote.trainer.problems import TrainError
from remote.trainer.settings import Dpo, Evaluation, Lora, Simpo, check, load, parse

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
    assert (train.max_seq_length, train.packing, train.args.max_steps) == (64, True, 3)
    assert (train.method, train.loss_reduction) == ("sft", "tokens")


def test_reads_the_methods_own_mappings() -> None:
    dpo = parse({**GOOD, "method": "dpo", "dpo": {"beta": 5, "norm": True}})
    assert dpo.dpo == Dpo(beta=5, norm=True)
    simpo = parse({**GOOD, "method": "simpo", "simpo": {"gamma_beta_ratio": 0.3}})
    assert simpo.simpo == Simpo(beta=2.0, gamma_beta_ratio=0.3)
    assert parse({**GOOD, "lora": None, "qlora": {"r": 8}}).lora == Lora(r=8, four_bit=True)


@pytest.mark.parametrize(
    ("method", "how", "rate"),
    [("sft", {"full": True}, 2e-5), ("sft", {"lora": True}, 2e-4), ("dpo", {"full": True}, 5e-7)],
    ids=["sft-full", "sft-lora", "dpo-full"],
)
def test_the_learning_rate_suits_the_method(method: str, how: Any, rate: float) -> None:
    given = {"method": method, "model": "m", "data": "d.jsonl", **how}
    assert parse(given).learning_rate == rate
    assert parse({**given, "args": {"learning_rate": 0.5}}).learning_rate == 0.5


@pytest.mark.parametrize("data", ["a.jsonl", ["a.jsonl"]], ids=["text", "list"])
def test_one_file_needs_no_list(data: Any) -> None:
    train = parse({**GOOD, "data": data, "evaluate": {"data": data}})
    assert train.train_files == ("a.jsonl",)
    assert train.evaluation == Evaluation(("a.jsonl",))


def test_on_another_machine_its_files_are_not_looked_for() -> None:
    elsewhere = {**GOOD, "template": "none.jinja", "deepspeed": "none.json"}
    assert check(elsewhere) == ()
    assert check({**elsewhere, "lora": None, "qlora": True})[0].startswith("qlora: 4-bit weights")
    with pytest.raises(TrainError) as caught:
        parse(elsewhere)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["template", "deepspeed"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dpo": {"beta": 1}}, "dpo: is for method dpo; the method is sft"),
        ({"method": "dpo", "dpo": {"beta": 0}}, "dpo.beta: must be more than 0"),
        ({"method": "dpo", "dpo": {"label_smoothing": 0.5}}, "dpo.label_smoothing: must be"),
        ({"method": "dpo", "dpo": {"gamma": 1}}, "dpo.gamma: unknown key"),
        ({"method": "simpo", "simpo": {"gamma_beta_ratio": -1}}, "simpo.gamma_beta_ratio: must"),
        ({"method": "dpo", "packing": True}, "packing: only for sft"),
        ({"method": "dpo", "loss_reduction": "sequences"}, "loss_reduction: only for sft"),
        ({"method": "magic"}, "method: must be one of sft, dpo, simpo, gad, not 'magic'"),
        ({"modle": "m"}, "modle: unknown key; did you mean model?"),
        ({"model": None}, "model: is missing"),
        ({"model": 3}, "model: must be a text"),
        ({"data": []}, "data: is missing"),
        ({"data": [1]}, "data: must be a text or a list of texts"),
        ({"data": {"train": "x.jsonl"}}, "data: must be a text or a list of texts"),
        ({"method": None}, "method: is missing"),
        ({"method": "dop", "dpo": {"beta": 1}}, "method: must be one of"),
        ({"lora": None}, "lora: say what is trained: lora: true, qlora: true or full: true"),
        ({"lora": {"alpha": 0}}, "lora.alpha: must be more than 0"),
        ({"full": True}, "full: lora and full exclude each other"),
        ({"lora": {"r": 0}}, "lora.r: must be a whole number of at least 1"),
        ({"lora": {"r": 4, "rank": 4}}, "lora.rank: r and rank are the same thing; give one"),
        ({"lora": {"dropout": 1}}, "lora.dropout: must be at least 0 and less than 1"),
        ({"lora": {"aplha": 1}}, "lora.aplha: unknown key; did you mean alpha?"),
        ({"qlora": True}, "qlora: lora and qlora exclude each other; keep one"),
        ({"loss_reduction": "words"}, "loss_reduction: must be one of tokens, sequences"),
        (
            {"lora": None, "qlora": True, "deepspeed": {}},
            "qlora: 4-bit weights cannot be sharded by DeepSpeed; leave `deepspeed` out",
        ),
        (
            {"args": {"optim": "adamw_bnb_8bit"}, "deepspeed": {}},
            "args.optim: adamw_bnb_8bit cannot be sharded by DeepSpeed; say adamw_torch",
        ),
        ({"deepspeed": "none.json"}, "deepspeed: none.json: cannot be read"),
        ({"deepspeed": 2}, "deepspeed: must be a path or a mapping"),
        ({"template": "none.jinja"}, "template: none.jinja is not a file"),
        ({"max_seq_length": True}, "max_seq_length: must be a whole number of at least 1"),
        ({"packing": "yes"}, "packing: must be true or false"),
        ({"args": []}, "args: must be a mapping"),
        ({"args": {"fp16": True}}, "args.fp16: needs deepspeed, which scales the loss"),
        ({"deepspeed": {"bf16": True}}, "deepspeed.bf16: must be a mapping"),
        ({"deepspeed": {"zero_optimization": 2}}, "deepspeed.zero_optimization: must be a mapping"),
        (
            {"deepspeed": {"zero_optimization": {"stage": "two"}}},
            "deepspeed.zero_optimization.stage: must be 0 to 3",
        ),
        ({"evaluate": {"every": 2}}, "evaluate.data: is missing"),
        ({"evaluate": {}}, "evaluate.data: is missing"),
        ({"evaluate": "e.jsonl"}, "evaluate: must be a mapping"),
        ({"dpo": {}}, "dpo: is for method dpo; the method is sft"),
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
        parse({"method": "x", "packing": 1, "colour": "red", "args": {"max_step": 3}})
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert sorted(keys) == sorted(
        ["colour", "method", "data", "model", "lora", "args.max_step", "packing"]
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
