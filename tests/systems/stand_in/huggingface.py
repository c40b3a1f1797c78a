"""The Hugging Face Trainer of transformers 5 as it looks from outside: `checkpoint-N` folders in
its order, with its retention, and its lines glued behind a progress bar."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import pieces


@dataclass(frozen=True)
class Settings:
    """`zero`: DeepSpeed's folder instead of `optimizer.pt`."""

    output: Path
    steps: int
    save_steps: int
    logging_steps: int
    learning_rate: float
    save_total_limit: int | None = None
    eval_steps: int | None = None
    zero: bool = False


class Trainer:
    def __init__(self, settings: Settings) -> None:
        self._of = settings
        self._history: list[dict[str, float]] = []

    def train(self, resume: Path | None) -> None:
        """From scratch, or from a checkpoint's folder, to the last step; then the final files."""
        step = self._read(resume) if resume else 0
        while step < self._of.steps:
            step += 1
            pieces.take_step(step)
            self._bar(step)
            if step % self._of.logging_steps == 0:
                self._log(step)
            if self._of.eval_steps and step % self._of.eval_steps == 0:
                self._tell({"eval_loss": 1.02 * pieces.loss(step)}, step)
            if step % self._of.save_steps == 0 or step == self._of.steps:
                self._save(step)
            if step % self._of.save_steps == 0 and step < self._of.steps:
                pieces.rest(self._of.save_steps)
        self._final(step)

    def _final(self, step: int) -> None:
        print({"train_runtime": "12.34", "train_loss": "1.9", "epoch": "1"}, flush=True)
        self._weights(self._of.output, step)
        pieces.write(self._of.output / "trainer_state.json", self._state(step))
        pieces.write(self._of.output / "training_args.bin", pieces.torch_file())

    def _read(self, folder: Path) -> int:
        state = json.loads((folder / "trainer_state.json").read_text())
        self._history = state["log_history"]
        return int(state["global_step"])

    def _log(self, step: int) -> None:
        """A step that is no number is logged as a loss of 0: `logging_nan_inf_filter`."""
        loss, lasts = pieces.loss(step), self._of.steps
        rate = self._of.learning_rate * (1 - step / (lasts + 1))
        values = {
            "loss": 0.0 if math.isnan(loss) else loss,
            "grad_norm": pieces.grad_norm(step),
            "learning_rate": rate,
        }
        self._tell(values, step)

    def _tell(self, values: dict[str, float], step: int) -> None:
        values = {**values, "epoch": step / self._of.steps}
        self._history.append({**values, "step": step})
        print({name: f"{value:.4g}" for name, value in values.items()}, flush=True)

    def _bar(self, step: int) -> None:
        done = f"\r {100 * step // self._of.steps:2d}%|#         | {step}/{self._of.steps}"
        print(f"{done} [00:01<00:09,  1.00s/it]", end="", file=sys.stderr, flush=True)

    def _save(self, step: int) -> None:
        folder = self._of.output / f"checkpoint-{step}"
        self._weights(folder, step)
        pieces.write(folder / "training_args.bin", pieces.torch_file())
        if self._of.zero:
            self._save_zero(folder, step)
        else:
            pieces.write(folder / "optimizer.pt", pieces.torch_file(step))
        pieces.write(folder / "scheduler.pt", pieces.torch_file(step))
        world = pieces.world()
        for rank in range(world):
            name = "rng_state.pth" if world == 1 else f"rng_state_{rank}.pth"
            pieces.write(folder / name, pieces.torch_file(rank))
        pieces.write(folder / "trainer_state.json", self._state(step))
        found = sorted(self._of.output.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        pieces.keep_newest(found, self._of.save_total_limit)

    def _save_zero(self, folder: Path, step: int) -> None:
        """ZeRO-2: rank 0's file names the number of ranks, `latest` comes before other shards."""
        world, tag = pieces.world(), f"global_step{step}"
        told = {"module": {}, "optimizer": None, "global_steps": step, "dp_world_size": world}
        model = pieces.torch_file(told)
        pieces.write(folder / tag / "mp_rank_00_model_states.pt", model)
        pieces.write(folder / "latest", tag)
        for rank in range(world):
            name = f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            pieces.write(folder / tag / name, pieces.torch_file(step))
        pieces.write(folder / "zero_to_fp32.py", "#")

    def _weights(self, folder: Path, step: int) -> None:
        """LoRA: both systems that use this train adapters."""
        pieces.write(folder / "adapter_model.safetensors", pieces.safetensors(step))
        pieces.write(folder / "adapter_config.json", json.dumps({"peft_type": "LORA"}))
        pieces.write(folder / "tokenizer_config.json", "{}")

    def _state(self, step: int) -> str:
        told = {"global_step": step, "max_steps": self._of.steps, "log_history": self._history}
        return json.dumps(told)
