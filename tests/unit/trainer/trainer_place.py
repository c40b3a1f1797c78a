"""What the trainer's tests share: a tiny model, small data, and whole runs in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from remote.trainer.run import run as train
from remote.trainer.settings import parse
from remote.trainer.tiny_model import build

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "sleeps")


class Place:
    """A work folder with `tiny/`, `chat.jsonl` and `pairs.jsonl`; runs happen in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = folder / "text.txt"
        text.write_text("\n".join(" ".join(WORDS[i % 7 :]) for i in range(200)))
        build(folder / "tiny", [text], hidden=32, vocabulary=300, layers=2, spread=0.1)
        write(folder / "chat.jsonl", [{"messages": chat(i)} for i in range(40)])
        rows = [{"chosen": chat(i), "rejected": chat(i, shift=5)} for i in range(40)]
        write(folder / "pairs.jsonl", rows)

    def run(self, out: str, *, resume: str | None = None, **changes: Any) -> int:
        """A whole run in this process; its metrics are `lines(out)`."""
        folder = self.folder / resume if resume else None
        return train(parse(self.mapping(out, **changes)), resume=folder)

    def mapping(self, out: str, **changes: Any) -> dict[str, Any]:
        args = {
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "max_steps": 8,
            "save_strategy": "no",
            "output_dir": str(self.folder / out),
            **changes.pop("args", {}),
        }
        method = changes.get("method", "sft")
        data = "chat.jsonl" if method == "sft" else "pairs.jsonl"
        return {
            "method": method,
            "model": str(self.folder / "tiny"),
            "data": str(self.folder / data),
            "max_seq_length": 64,
            **({} if "lora" in changes or "qlora" in changes else {"full": True}),
            **changes,
            "args": args,
        }

    def history(self, out: str) -> list[dict[str, Any]]:
        """The logged records of a finished run."""
        state = json.loads((self.folder / out / "trainer_state.json").read_text())
        return list(state["log_history"])

    def losses(self, out: str) -> list[float]:
        return [record["loss"] for record in self.history(out) if "loss" in record]


def chat(number: int, *, shift: int = 0) -> list[dict[str, str]]:
    """A question and an answer of one to nine words."""
    words = [WORDS[(number + shift + j) % len(WORDS)] for j in range(1 + (number + shift) % 9)]
    return [
        {"role": "user", "content": f"Say it {number} times."},
        {"role": "assistant", "content": " ".join(words)},
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def batches(rows: int, size: int, *, seed: int = 42) -> Iterator[list[int]]:
    """The documented order, written again: epochs' permutations end to end, cut into batches."""
    stream: list[int] = []
    epoch = 0
    while True:
        while len(stream) < size:
            generator = np.random.Generator(np.random.PCG64([seed, epoch]))
            stream.extend(generator.permutation(rows).tolist())
            epoch += 1
        yield stream[:size]
        del stream[:size]
