"""open-instruct as it looks from outside: accelerate's states with `COMPLETED`, a folder with the
time in its name unless told otherwise, and lines glued behind a progress bar."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pieces
import yaml


class Run:
    """`before` is called with the step that was loaded, or 0, before the first one is made."""

    def __init__(self, *, zero: bool, before: Callable[[Run, int], None] | None = None) -> None:
        pieces.begin()
        self.config: dict[str, Any] = yaml.safe_load(Path(sys.argv[1]).read_text())
        self._zero, self._before, self._world = zero, before, pieces.world()
        if zero and self.config.get("use_8bit_optimizer"):
            raise ValueError("8-bit optimizers are not supported with DeepSpeed")
        self._out = Path(self.config["output_dir"])
        if not self.config.get("do_not_randomize_output_dir"):
            self._out /= f"{self.config['exp_name']}__{self.config['seed']}__{int(time.time())}"

    def say(self, words: str) -> None:
        print(f"2026-01-02 03:04:05 - INFO - finetune.py:1 - {words}", flush=True)

    def train(self, *, first_loss: float, printed: int) -> None:
        """`printed`: how many ranks print a step's line."""
        self._introduce()
        steps = int(self.config.get("max_train_steps") or pieces.STEPS)
        step = self._load()
        if self._before:
            self._before(self, step)
        self.say("***** Running training *****")
        self.say(f"  Total optimization steps = {steps}")
        every = self.config["checkpointing_steps"]
        every = steps // 2 if every == "epoch" else int(every)
        while step < steps:
            step += 1
            pieces.take_step(step)
            self._line(step, steps, first_loss, printed)
            if step % every == 0:
                self._save(step)
                pieces.rest(every)
        self._final(step)

    def _introduce(self) -> None:
        kind = "DistributedType.DEEPSPEED  Backend: nccl" if self._zero else "DistributedType.NO"
        for rank in range(self._world):
            self.say(f"Distributed environment: {kind}")
            print(f"Num processes: {self._world}\nProcess index: {rank}", flush=True)
        self.say(f"using the output directory: {self._out}")
        if self._zero:
            print("Detected DeepSpeed ZeRO-3: activating zero.init() for this model", flush=True)
            print("After initializing ZeRO optimizer", flush=True)

    def _load(self) -> int:
        found = [path.parent for path in self._out.glob("step_*/COMPLETED")]
        if not found:
            return 0
        newest = max(found, key=lambda path: int(path.name[5:]))
        print(f"Resumed from checkpoint: {newest}", flush=True)
        ranks = len(list(newest.glob("random_states_*.pkl")))
        assert ranks == self._world, f"a checkpoint of {ranks} ranks, and there are {self._world}"
        return int(newest.name[5:])

    def _line(self, step: int, steps: int, first_loss: float, printed: int) -> None:
        bar = f"\r {100 * step // steps:2d}%|#         | {step}/{steps} [00:01<00:09,  1.00s/it]"
        print(bar, end="", file=sys.stderr, flush=True)
        loss = pieces.loss(step, first_loss)
        rate = float(self.config["learning_rate"])
        for _ in range(printed):
            self.say(f"  Step: {step}, LR: {rate}, Loss: {loss}, TPS: 1999.5")

    def _save(self, step: int) -> None:
        folder = self._out / f"step_{step}"
        self.say(f"Saving current state to {folder}")
        if self._zero:
            self._save_zero(folder, step)
        else:
            pieces.write(folder / "model.safetensors", pieces.safetensors(step))
            pieces.write(folder / "optimizer.bin", pieces.torch_file(step))
        pieces.write(folder / "scheduler.bin", pieces.torch_file(step))
        pieces.write(folder / "sampler.bin", pieces.torch_file(step))
        for rank in range(self._world):
            pieces.write(folder / f"random_states_{rank}.pkl", pieces.torch_file(rank))
        pieces.write(folder / "COMPLETED", "COMPLETED")
        found = sorted(self._out.glob("step_*"), key=lambda path: int(path.name[5:]))
        pieces.keep_newest(found, int(self.config["keep_last_n_checkpoints"]))

    def _save_zero(self, folder: Path, step: int) -> None:
        world = self._world
        told = {"module": {}, "optimizer": None, "global_steps": step, "dp_world_size": world}
        for rank in range(world):
            start = folder / "pytorch_model" / f"zero_pp_rank_{rank}_mp_rank_00"
            pieces.write(Path(f"{start}_model_states.pt"), pieces.torch_file(told))
            pieces.write(Path(f"{start}_optim_states.pt"), pieces.torch_file(step))
        pieces.write(folder / "latest", "pytorch_model")

    def _final(self, step: int) -> None:
        """Weights in two parts, then what pushes them, which fails with the project's own ids."""
        parts = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
        made_of = (step, self._world, self.config["model_name_or_path"])
        for part in parts:
            pieces.write(self._out / part, pieces.torch_file(made_of))
        index = {"weight_map": dict(zip("ab", parts, strict=True))}
        pieces.write(self._out / "pytorch_model.bin.index.json", json.dumps(index))
        pieces.write(self._out / "config.json", "{}")
        pieces.write(self._out / "tokenizer_config.json", "{}")
        if self.config["push_to_hub"]:
            where = f"{self.config['hf_entity']}/{self.config['hf_repo_id']}"
            raise RuntimeError(f"HFValidationError: Repo id must be namespace/name: {where}")
