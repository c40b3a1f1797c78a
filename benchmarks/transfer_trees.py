"""What is fetched: three checkpoints as trainers leave them, of random bytes, which nothing can
compress, and a larger one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
QUICK_SCALE = 1 / 256


@dataclass(frozen=True)
class Tree:
    """Files as (path, bytes); `usual`: measured unless other trees are asked for."""

    title: str
    files: tuple[tuple[str, int], ...]
    usual: bool = True


def _shards() -> Iterator[tuple[str, int]]:
    for number in range(64):
        yield f"model-{number:05d}-of-00064.safetensors", 16 * MIB
    for number in range(200):
        yield f"shards/{number:03d}.json", 1000 + 300 * number


LORA = (
    ("adapter_model.safetensors", 133_000_000),
    ("optimizer.pt", 266_000_000),
    ("tokenizer.json", 1_000_000),
    *((name, 10_000) for name in ("adapter_config.json", "scheduler.pt", "trainer_state.json")),
)
TREES = {
    "one": Tree("1 GiB in one file", (("model.safetensors", 1024 * MIB),)),
    "shards": Tree("1 GiB in 64 shards, and 200 small files", tuple(_shards())),
    "lora": Tree("A LoRA of 400 MB", LORA),
    "four": Tree("4 GiB in one file", (("model.safetensors", 4096 * MIB),), usual=False),
}


def write_tree(folder: Path, name: str, *, scale: float) -> Path:
    for path, size in TREES[name].files:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            left = max(1, int(size * scale))
            while left:
                left -= file.write(os.urandom(min(left, 16 * MIB)))
    return folder
