"""Fifty steps of each method against a loop written from the papers: torch alone, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from tokenizers import Tokenizer
from torch.nn.functional import logsigmoid
from trainer_place import Place, batches
from transformers import LlamaForCausalLM

pytestmark = pytest.mark.trainer
STEPS, BATCH, PEAK = 50, 4, 1e-3
Row = list[tuple[list[int], list[int]]]  # tokens, and the places of those that are learned
Loss = Callable[[Any, Any, list[Row], list[int]], Any]


def test_sft_over_tokens(trainer_place: Place) -> None:
    _same(trainer_place, "sft", _sft_tokens)


def test_sft_over_sequences(trainer_place: Place) -> None:
    _same(trainer_place, "sft", _sft_sequences, loss_reduction="sequences")


def test_dpo(trainer_place: Place) -> None:
    first, *rest = _same(trainer_place, "dpo", _dpo, dpo={"beta": 0.3, "label_smoothing": 0.1})
    assert first == pytest.approx(0.6931471805599453, abs=1e-7)
    assert min(rest) < 0.5


def test_dpo_norm(trainer_place: Place) -> None:
    _same(trainer_place, "dpo", _dpo_norm, dpo={"beta": 5.0, "norm": True})


def test_simpo(trainer_place: Place) -> None:
    _same(trainer_place, "simpo", _simpo, simpo={"beta": 2.5, "gamma_beta_ratio": 0.55})


def _same(place: Place, method: str, loss: Loss, **changes: Any) -> list[float]:
    """Accumulation and warm-up are part of it; so is the clip, which is often at work."""
    out = f"curve-{loss.__name__}"
    args = {
        "max_steps": STEPS,
        "learning_rate": PEAK,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "linear",
        "warmup_steps": 5,
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
    }
    assert place.run(out, method=method, args=args, **changes) == 0
    ours = place.losses(out)
    theirs = _loop(place.folder, "chat.jsonl" if method == "sft" else "pairs.jsonl", loss)
    assert len(ours) == STEPS
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert sum(ours[-10:]) < sum(ours[:10]), "nothing was learned: equal to anything"
    return ours


def _loop(folder: Path, data: str, loss: Loss) -> list[float]:
    model, first = (LlamaForCausalLM.from_pretrained(folder / "tiny") for _ in range(2))
    rows = _rows(folder, data)
    matrices = [each for each in model.parameters() if each.dim() > 1]
    others = [each for each in model.parameters() if each.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    )
    losses = []
    for step, members in zip(range(STEPS), batches(len(rows), BATCH), strict=False):
        rate = step / 5 if step < 5 else (STEPS - step) / (STEPS - 5)
        for group in optimizer.param_groups:
            group["lr"] = PEAK * rate
        value = loss(model, first, rows, members)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return losses


def _sft_tokens(model: Any, first: Any, rows: list[Row], members: list[int]) -> Any:
    return -torch.cat([_log_probs(model, rows[row][0]) for row in members]).mean()


def _sft_sequences(model: Any, first: Any, rows: list[Row], members: list[int]) -> Any:
    return -torch.stack([_log_probs(model, rows[row][0]).mean() for row in members]).mean()


def _dpo(model: Any, first: Any, rows: list[Row], members: list[int]) -> Any:
    values = []
    for row in members:
        margin = 0.3 * _margin(model, first, rows[row], torch.sum)
        values.append(-0.9 * logsigmoid(margin) - 0.1 * logsigmoid(-margin))
    return torch.stack(values).mean()


def _dpo_norm(model: Any, first: Any, rows: list[Row], members: list[int]) -> Any:
    margins = [5.0 * _margin(model, first, rows[row], torch.mean) for row in members]
    return torch.stack([-logsigmoid(margin) for margin in margins]).mean()


def _simpo(model: Any, first: Any, rows: list[Row], members: list[int]) -> Any:
    values = []
    for row in members:
        chosen, rejected = (_log_probs(model, part).mean() for part in rows[row])
        values.append(-logsigmoid(2.5 * (chosen - rejected) - 2.5 * 0.55))
    return torch.stack(values).mean()


def _margin(model: Any, first: Any, row: Row, reduce: Callable[[Any], Any]) -> Any:
    chosen, rejected = (reduce(_log_probs(model, part)) for part in row)
    with torch.no_grad():
        first_chosen, first_rejected = (reduce(_log_probs(first, part)) for part in row)
    return (chosen - first_chosen) - (rejected - first_rejected)


def _log_probs(model: Any, part: tuple[list[int], list[int]]) -> Any:
    ids, learned = part
    chances = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return torch.stack([chances[place - 1, ids[place]] for place in learned])


def _rows(folder: Path, data: str) -> list[Row]:
    """The template written out, and what is learned found by the places of its characters."""
    tokenizer = Tokenizer.from_file(str(folder / "tiny" / "tokenizer.json"))
    rows = [json.loads(line) for line in (folder / data).read_text().splitlines()]
    keys = ["messages"] if data == "chat.jsonl" else ["chosen", "rejected"]
    return [[_tokens(tokenizer, *row[key]) for key in keys] for row in rows]


def _tokens(tokenizer: Any, user: Any, assistant: Any) -> tuple[list[int], list[int]]:
    before = f"<|begin|>user:\n{user['content']}<|end|>\nassistant:\n"
    answer = assistant["content"] + "<|end|>"
    coded = tokenizer.encode(f"{before}{answer}\n", add_special_tokens=False)
    begin, end = len(before), len(before) + len(answer)
    learned = [at for at, (a, b) in enumerate(coded.offsets) if a >= begin and b <= end]
    return coded.ids, learned
