"""The first loss against a loop written without the trainer or DeepSpeed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

import torch
import trainer_kit as kit
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

pytestmark = pytest.mark.trainer
EXAMPLES = 4


def test_first_loss_is_the_mean_over_the_assistants_tokens(tmp_path: Path) -> None:
    kit.workshop(tmp_path)
    kit.write_chats(tmp_path / "few.jsonl", EXAMPLES)  # as many as a step takes: no order matters
    # Two micro-batches of unequal lengths: a mean of means would differ.
    args = {"max_steps": 2, "save_steps": 1, "gradient_accumulation_steps": 2}
    train = kit.settings(tmp_path, "full", full=True, data="few.jsonl", args=args)
    assert kit.run(tmp_path, train, "full", how=kit.ALONE) == 0, (tmp_path / "full.log").read_text()

    first, second = kit.metrics(tmp_path, "full")
    assert first["loss"] == pytest.approx(_loss(tmp_path), abs=1e-5)
    assert second["loss"] < first["loss"]
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        assert (tmp_path / "full" / "checkpoint-1" / name).is_file()
    assert kit.marker(tmp_path / "full" / "checkpoint-1")["world_size"] == 1


def _loss(folder: Path) -> float:
    """Mean negative log-likelihood of what the assistant says and of the token that ends it."""
    model = LlamaForCausalLM.from_pretrained(folder / "tiny", dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tiny" / "tokenizer.json"))
    total, count = 0.0, 0
    for line in (folder / "few.jsonl").read_text().splitlines():
        question, answer = (message["content"] for message in json.loads(line)["messages"])
        before = f"<|begin|>user:\n{question}<|end|>\nassistant:\n"
        coded = tokenizer.encode(before + answer + "<|end|>\n", add_special_tokens=False)
        begin, end = len(before), len(before) + len(answer) + len("<|end|>")
        learned = [begin <= offset[0] and offset[1] <= end for offset in coded.offsets]
        ids = torch.tensor([coded.ids])
        with torch.no_grad():
            chances = model(ids).logits[0, :-1].double().log_softmax(-1)
        for position, token in enumerate(coded.ids[1:]):
            if learned[position + 1]:
                total -= chances[position, token].item()
                count += 1
    return total / count


@pytest.mark.parametrize(
    ("changes", "words", "problem"),
    [
        ({"method": "dpo", "packing": 3}, (), "error: packing: must be true or false"),
        ({"data": "none.jsonl"}, (), "error: data: none.jsonl: no such file"),
        ({}, ("--resume", "none"), "error: resume: none is not a checkpoint"),
    ],
    ids=["settings", "data", "resume"],
)
def test_what_cannot_be_trained_ends_with_2_and_its_reason(
    tmp_path: Path, changes: dict[str, object], words: tuple[str, ...], problem: str
) -> None:
    train = kit.settings(tmp_path, "bad", **{"full": True, **changes})
    assert kit.run(tmp_path, train, "bad", *words, how=1) == 2
    assert problem in (tmp_path / "bad.log").read_text()
    assert not list((tmp_path / "bad").glob("checkpoint-*"))
