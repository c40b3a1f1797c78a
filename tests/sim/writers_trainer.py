"""The Hugging Face Trainer as a writer: alone, or with DeepSpeed on some ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers.modeling_utils
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from remote.trainer.setup import start_deepspeed_on_cpu
from sim.writers_pace import Writer
from sim.writers_slow import slow_safetensors, slow_torch, slow_trainer_state

WORDS = 64


class Watching(TrainerCallback):  # type: ignore[misc]
    """Around every save: `on_save` comes when this rank has returned from it."""

    def __init__(self, writer: Writer, out: Path) -> None:
        self._writer = writer
        self._out = out

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._writer.begin(state.global_step + 1)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._writer.end(state.global_step, self._out / f"checkpoint-{state.global_step}")


def train(
    start: Callable[[Callable[[], None]], Writer], saves: int, out: Path, stage: int | None
) -> None:
    if stage is not None:
        start_deepspeed_on_cpu()
    writer = start(torch.distributed.barrier if stage is not None else lambda: None)
    slow_torch(writer)
    slow_safetensors(writer, transformers.modeling_utils)
    slow_trainer_state(writer)
    trainer = Trainer(
        model=_model(32 if stage is not None else 192),
        args=_arguments(out, saves, stage),
        train_dataset=[{"input_ids": ids, "labels": ids} for ids in torch.randint(WORDS, (64, 8))],
        callbacks=[Watching(writer, out)],
    )
    trainer.train()


def _model(hidden: int) -> LlamaForCausalLM:
    """At 192 the optimizer's file is one that the agent links and does not copy."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, **sizes, **heads))


def _arguments(out: Path, saves: int, stage: int | None) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(out),
        max_steps=saves,
        save_steps=1,
        save_total_limit=1,
        per_device_train_batch_size=2,
        logging_steps=saves,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        deepspeed=None if stage is None else _deepspeed(stage),
    )


def _deepspeed(stage: int) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    return {
        **dict.fromkeys(auto, "auto"),
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
    }
