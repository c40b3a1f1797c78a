"""The model and the data that all contestants of benchmarks/trainer.py train on."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from remote.trainer.tiny_model import build

WORDS = 6000
POSITIONS = 4096


@dataclass(frozen=True)
class Size:
    """A Llama of random weights. `answer` is the median length of an answer, in words."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    answer: int


SIZES = {
    "tiny": Size(128, 3, 4, 4, 512, 4000, 12),
    "1b": Size(2048, 16, 32, 8, 8192, 128_256, 200),
    "3b": Size(3072, 28, 24, 8, 8192, 128_256, 200),
    "8b": Size(4096, 32, 32, 8, 14_336, 128_256, 200),
}


def stock(folder: Path, size: Size, *, rows: int, seed: int = 0) -> None:
    """Write `model/`, `chat.jsonl` and `pairs.jsonl`. Lengths spread as those of chats do."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(WORDS)]
    chats = [_chat(chance, words, size.answer) for _ in range(rows)]
    _write(folder / "chat.jsonl", [{"messages": chat} for chat in chats])
    others = [_answer(chance, words, size.answer) for _ in range(rows)]
    pairs = zip(chats, others, strict=True)
    _write(
        folder / "pairs.jsonl", [{"chosen": c, "rejected": [*c[:-1], other]} for c, other in pairs]
    )
    (folder / "words.txt").write_text("\n".join(" ".join(words[at:]) for at in range(0, WORDS, 50)))
    _model(folder, size)


def _chat(chance: random.Random, words: list[str], answer: int) -> list[dict[str, str]]:
    question = " ".join(chance.choices(words, k=_length(chance, answer // 2)))
    return [{"role": "user", "content": question}, _answer(chance, words, answer)]


def _answer(chance: random.Random, words: list[str], answer: int) -> dict[str, str]:
    return {
        "role": "assistant",
        "content": " ".join(chance.choices(words, k=_length(chance, answer))),
    }


def _length(chance: random.Random, median: int) -> int:
    return max(2, min(6 * median, round(median * chance.lognormvariate(0, 0.7))))


def _model(folder: Path, size: Size) -> None:
    build(
        folder / "model",
        [folder / "words.txt"],
        vocabulary=4000,
        hidden=64,
        layers=1,
        positions=POSITIONS,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=max(size.vocabulary, len(tokenizer)),
                hidden_size=size.hidden,
                intermediate_size=size.inner,
                num_hidden_layers=size.layers,
                num_attention_heads=size.heads,
                num_key_value_heads=size.kv_heads,
                max_position_embeddings=POSITIONS,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    model.save_pretrained(folder / "model")


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
