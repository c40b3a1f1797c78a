"""One run of TRL's own trainer: `python benchmarks/trainer_trl.py SPEC.json` prints what it took.

Spec: `method`, `folder` (of trainer_shop), `out`, `options` (of SFTConfig or DPOConfig), `lora`."""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer


class Steps(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **rest: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


class Counting:
    """Counts the tokens of each step, none of them padding, and the time of the reference pass."""

    def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        mask = inputs.get("attention_mask")
        counted = int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
        self.counted = [*getattr(self, "counted", []), counted]
        return super().training_step(model, inputs, *rest, **more)  # type: ignore[misc]

    def _precompute_ref_logps(self, *args: Any, **rest: Any) -> Any:
        began = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **rest)  # type: ignore[misc]
        self.reference_s = time.perf_counter() - began
        return found


class Sft(Counting, SFTTrainer):
    pass


class Dpo(Counting, DPOTrainer):
    pass


def main() -> None:
    warnings.simplefilter("ignore")
    spec = json.loads(Path(sys.argv[1]).read_text())
    folder, sft = Path(spec["folder"]), spec["method"] == "sft"
    data = load_dataset(
        "json",
        data_files=str(folder / ("chat.jsonl" if sft else "pairs.jsonl")),
        split="train",
        cache_dir=str(folder / "datasets"),
    )
    config = (SFTConfig if sft else DPOConfig)(
        output_dir=spec["out"], save_strategy="no", report_to="none", **spec["options"]
    )
    steps = Steps()
    trainer = (Sft if sft else Dpo)(
        model=str(folder / "model"),
        args=config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[steps],
        peft_config=_adapters(spec["lora"]),
    )
    trainer.train()
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    on_gpu = torch.cuda.is_available()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = torch.cuda.max_memory_allocated() if on_gpu else resident
    result = {
        "ends": steps.ends,
        "tokens": trainer.counted,
        "reference_s": getattr(trainer, "reference_s", 0.0),
        "memory_gb": memory / 2**30,
        "loss": losses[-1] if losses else None,
    }
    print(f"RESULT {json.dumps(result)}")


def _adapters(lora: dict[str, int] | None) -> LoraConfig | None:
    if lora is None:
        return None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora["r"],
        lora_alpha=lora["alpha"],
        target_modules="all-linear",
    )


if __name__ == "__main__":
    main()
