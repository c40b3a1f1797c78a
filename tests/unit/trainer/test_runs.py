"""Whole runs in this process: what they print, evaluate and write, and what they refuse."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from trainer_place import Place, chat, write
from transformers import AutoModelForCausalLM

from remote.trainer.problems import TrainError

pytestmark = pytest.mark.trainer


def test_says_what_it_trains_on(trainer_place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_place.run("said", args={"max_steps": 2})
    said = capsys.readouterr().out
    assert "data: 40 examples: 0.00 % cut to the longest length, 0.00 % dropped" in said
    assert "batch: 1 ranks x 4 sequences x 1 accumulation = 4 sequences a step" in said
    assert "10.00 steps an epoch; 2 steps = 0.20 epochs" in said
    assert "learned in [[ ]]:\n<|begin|>user:\nSay it" in said
    assert "assistant:\n[[" in said
    assert "step 2/2  loss" in said
    assert said.endswith("finished at step 2\n")


def test_the_longest_length_is_applied_and_its_share_told(
    trainer_place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers of rows from 10 on begin one token later: there all of their 35 are question."""
    trainer_place.run("cut", max_seq_length=35, args={"max_steps": 1})
    said = capsys.readouterr().out
    assert "data: 40 examples: 100.00 % cut to the longest length, 75.00 % dropped because" in said
    assert "first example" in said
    capsys.readouterr()
    trainer_place.run("cut", max_seq_length=40, args={"max_steps": 1})
    assert "67.50 % cut to the longest length, 0.00 % dropped" in capsys.readouterr().out


def test_the_final_weights_are_a_model_of_transformers(trainer_place: Place) -> None:
    trainer_place.run("final", args={"max_steps": 2, "learning_rate": 0.01})
    folder = trainer_place.folder
    trained, first = (
        AutoModelForCausalLM.from_pretrained(folder / name) for name in ("final", "tiny")
    )
    pairs = zip(trained.parameters(), first.parameters(), strict=True)
    assert all(not one.equal(other) for one, other in pairs)


def test_evaluates_on_what_is_held_out(trainer_place: Place) -> None:
    rows = [{"messages": chat(i)} for i in range(100, 110)]
    held_out = write(trainer_place.folder / "held-out.jsonl", rows)
    evaluate = {"data": str(held_out), "every": 2, "max_examples": 7}
    trainer_place.run("evaluated-sft", evaluate=evaluate, args={"max_steps": 4})
    records = [r for r in trainer_place.history("evaluated-sft") if "eval_loss" in r]
    assert [record["step"] for record in records] == [2, 4]
    for record in records:
        assert record["eval_perplexity"] == pytest.approx(math.exp(record["eval_loss"]))


def test_perplexity_is_a_token_s_whatever_the_loss_is_a_mean_of(trainer_place: Place) -> None:
    evaluate = {"data": str(trainer_place.folder / "chat.jsonl"), "every": 1}
    found = {}
    for reduction in ("tokens", "sequences"):
        args = {"max_steps": 1, "learning_rate": 0.0}
        trainer_place.run(reduction, evaluate=evaluate, args=args, loss_reduction=reduction)
        (found[reduction],) = (r for r in trainer_place.history(reduction) if "eval_loss" in r)
    tokens, sequences = found["tokens"], found["sequences"]
    assert tokens["eval_perplexity"] == pytest.approx(math.exp(tokens["eval_loss"]))
    assert sequences["eval_perplexity"] == pytest.approx(tokens["eval_perplexity"])
    assert sequences["eval_loss"] != pytest.approx(tokens["eval_loss"], rel=1e-3)
    assert set(sequences) == set(tokens)


@pytest.mark.parametrize("how", [{}, {"lora": True}], ids=["full", "lora"])
def test_bfloat16_is_near(trainer_place: Place, how: dict[str, Any]) -> None:
    for out, bf16 in (("exact", False), ("half", True)):
        trainer_place.run(out, args={"max_steps": 5, "bf16": bf16}, **how)
    exact, half = (trainer_place.losses(out) for out in ("exact", "half"))
    assert half == pytest.approx(exact, rel=0.01)
    assert half != exact


def test_epochs_and_their_checkpoints(trainer_place: Place) -> None:
    args = {"max_steps": -1, "num_train_epochs": 1.5, "save_strategy": "epoch"}
    trainer_place.run("epochs", args=args)
    names = sorted(path.name for path in (trainer_place.folder / "epochs").glob("checkpoint-*"))
    assert names == ["checkpoint-10", "checkpoint-15"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "no/such/model/here"}, "model: no/such/model/here: no "),
        ({"data": "none.jsonl"}, "data: none.jsonl: no such file"),
        ({"max_seq_length": 20}, "no example has an assistant's word within it"),
        ({"lora": {"target_modules": ["nothing"]}}, "lora: Target modules"),
        ({"args": {"output_dir": None}}, "args.output_dir: is missing"),
        ({"args": {"output_dir": "/dev/null"}}, "args.output_dir: /dev/null: "),
        ({"args": {"report_to": "wandb"}}, "args.report_to: wandb is not installed here"),
    ],
    ids=["model", "file", "length", "targets", "output", "output-file", "wandb"],
)
def test_refuses_before_the_first_step(
    trainer_place: Place,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    problem: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GPUJOB_CHECKPOINT_DIR", raising=False)
    with pytest.raises(TrainError) as caught:
        trainer_place.run("refused", **changes)
    assert any(each.startswith(problem) or problem in each for each in caught.value.problems)
    assert not (trainer_place.folder / "refused" / "trainer_state.json").exists()


def test_a_longer_row_than_the_model_knows(trainer_place: Place, tmp_path: Path) -> None:
    long = chat(1)
    long[0]["content"] = "quick " * 600
    data = write(tmp_path / "long.jsonl", [{"messages": long}])
    with pytest.raises(TrainError, match="and the model knows 512 positions"):
        trainer_place.run("refused", data=str(data), max_seq_length=4000)


def test_the_witness_saw_what_was_written(
    trainer_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_WITNESS", str(tmp_path / "witness.jsonl"))
    args = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer_place.run("witnessed", args=args)
    lines = (tmp_path / "witness.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [
        *("checkpoint-1", "checkpoint-2", "final")
    ]
