"""What to change after the GPU ran out of memory: one rung a restart, the global batch kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rung:
    """`changes` to the trainer's settings. `asks`: it changes what is learnt: a person decides."""

    name: str
    changes: Mapping[str, Any]
    asks: bool = False


def next_rung(settings: Mapping[str, Any]) -> Rung | None:
    """The first rung that would still change something, or None when all are taken.

    What leaves the result alone comes first. Raises nothing: a setting that is not told is not
    climbed on, but for the allocator, which always can be."""
    for rung in (*_free(settings), *_costly(settings)):
        if any(settings.get(name) != value for name, value in rung.changes.items()):
            return rung
    return None


def _free(settings: Mapping[str, Any]) -> list[Rung]:
    allocator = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    found = [Rung("an allocator that does not fragment", allocator)]
    share = settings.get("gpu_memory_utilization")
    if isinstance(share, float) and share > 0.6:
        found.append(Rung("less memory for rollouts", {"gpu_memory_utilization": 0.6}))
    tokens = settings.get("ppo_max_token_len_per_gpu")
    if isinstance(tokens, int) and tokens > 8192:
        found.append(Rung("fewer tokens at once", {"ppo_max_token_len_per_gpu": 8192}))
    micro = settings.get("per_device_train_batch_size")
    accumulation = settings.get("gradient_accumulation_steps")
    if isinstance(micro, int) and isinstance(accumulation, int) and micro > 1:
        changes = {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": micro * accumulation,
        }
        found.append(Rung("one row at once, as many in all", changes))
    if settings.get("gradient_checkpointing") is False:
        found.append(Rung("gradient checkpointing", {"gradient_checkpointing": True}))
    if settings.get("use_liger_kernel") is False:
        found.append(Rung("a loss in chunks", {"use_liger_kernel": True}))
    return found


def _costly(settings: Mapping[str, Any]) -> list[Rung]:
    found = []
    length = settings.get("max_seq_length")
    if isinstance(length, int) and length > 1024:
        found.append(Rung("shorter rows", {"max_seq_length": max(1024, length // 2)}, asks=True))
    if settings.get("use_qlora") is False:
        found.append(Rung("QLoRA", {"use_qlora": True}, asks=True))
    rank = settings.get("lora_rank")
    if isinstance(rank, int) and rank > 8:
        found.append(Rung("a lower rank", {"lora_rank": max(8, rank // 2)}, asks=True))
    return found
