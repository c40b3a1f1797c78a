"""The engine over DeepSpeed, ZeRO 0 to 3, and how its checkpoints change their number of ranks."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from remote.trainer import zero
from remote.trainer.engine import Update
from remote.trainer.problems import TrainError
from remote.trainer.ranks import barrier, rank, together, world


class DeepSpeed:
    """One DeepSpeed engine. `workplace`: where a checkpoint is converted to another number of
    ranks, on the way in."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        config: Mapping[str, Any],
        workplace: Path,
    ) -> None:
        self._config = dict(config)
        self._workplace = workplace
        self._engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=self._config, dist_init_required=False
        )
        self.module: nn.Module = self._engine
        self._stage = zero.stage(config)
        self._trained_only = any(not each.requires_grad for each in module.parameters())
        if hasattr(self._engine.optimizer, "check_grad_overflow"):
            # In float32 and bfloat16 it would update the weights with NaN.
            self._engine.optimizer.check_grad_overflow = True

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed takes the mean over ranks; our losses add up.
        self._engine.backward(loss * world(), scale_wrt_gas=False)

    def step(self, rate: float) -> Update:
        norm = self._norm() if self._bare else None
        if norm is not None and not math.isfinite(norm):
            self._engine.zero_grad()
            return Update(norm, True)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()
        if getattr(self._engine.optimizer, "overflow", False):
            return Update(math.inf, True)
        if norm is None:
            norm = float(self._engine.get_global_grad_norm() or 0.0)
        return Update(norm, False)

    def save(self, folder: Path, step: int) -> None:
        self._engine.save_checkpoint(
            str(folder), tag=tag(step), exclude_frozen_parameters=self._trained_only
        )

    def load(self, folder: Path, step: int) -> None:
        together(lambda: _check_whole(folder / tag(step)))
        saved = ranks_of(folder / tag(step))
        if saved is None or saved == world():
            self._load(folder, tag(step))
            return
        together(lambda: self._convert(folder, step) if rank() == 0 else None)
        self._load_universal(f"{tag(step)}_universal")
        barrier()
        if rank() == 0:
            shutil.rmtree(self._workplace)

    def weights(self) -> dict[str, Tensor] | None:
        if self._stage < 3:
            return dict(self._engine.module.state_dict()) if rank() == 0 else None
        return self._gathered()

    @property
    def _bare(self) -> bool:
        """Whether nothing of DeepSpeed's looks at the gradients before the optimizer does."""
        return isinstance(self._engine.optimizer, torch.optim.Optimizer)

    def _norm(self) -> float:
        gradients = [each.grad for each in self._engine.module.parameters()]
        known = [each for each in gradients if each is not None]
        return float(torch.nn.utils.get_total_norm(known))

    def _load(self, folder: Path, name: str) -> None:
        path, _ = self._engine.load_checkpoint(
            str(folder), tag=name, load_module_strict=not self._trained_only
        )
        if path is None:
            raise TrainError([f"resume: {folder} holds no {name} that DeepSpeed can read"])

    def _load_universal(self, name: str) -> None:
        """DeepSpeed gives every group the first one's options, and one tensor as the count of
        steps, which then counts each step once a group: both are put right."""
        groups = self._engine.optimizer.param_groups
        options = [{key: group[key] for key in group if key != "params"} for group in groups]
        self._engine._config.load_universal_checkpoint = True
        try:
            self._load(self._workplace, name)
        finally:
            self._engine._config.load_universal_checkpoint = False
        for group, own in zip(self._engine.optimizer.param_groups, options, strict=True):
            group.update(own)
        for state in self._engine.basic_optimizer.state.values():
            if torch.is_tensor(state.get("step")):
                state["step"] = state["step"].clone()

    def _convert(self, folder: Path, step: int) -> None:
        """DeepSpeed's own conversion, in a process of its own: it is a script."""
        shutil.rmtree(self._workplace, ignore_errors=True)
        self._workplace.mkdir(parents=True)
        target = self._workplace / f"{tag(step)}_universal"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"),
                *("--input_folder", str(folder / tag(step)), "--output_folder", str(target)),
                *("--inject_missing_state", "--num_extract_workers", "1"),
                *("--num_merge_workers", "1"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise TrainError(
                [
                    f"resume: {folder} could not be converted to {world()} ranks:"
                    f" {said[-1] if said else 'no reason given'}"
                ]
            )

    def _gathered(self) -> dict[str, Tensor] | None:
        found: dict[str, Tensor] = {}
        for name, parameter in self._engine.module.named_parameters():
            if self._trained_only and not parameter.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([parameter]):
                if rank() == 0:
                    found[name] = parameter.detach().cpu().clone()
        if rank() != 0:
            return None
        buffers = self._engine.module.state_dict(keep_vars=False)
        names = {name for name, _ in self._engine.module.named_buffers()}
        return {**found, **{name: buffers[name] for name in names if name in buffers}}


def tag(step: int) -> str:
    """DeepSpeed's folder of one step, below the checkpoint's."""
    return f"global_step{step}"


def ranks_of(folder: Path) -> int | None:
    """How many ranks sharded the optimizer in `folder`; None when it is not sharded."""
    shards = list(folder.glob("*zero_pp_rank_*_mp_rank_00_optim_states.pt"))
    return len(shards) or None


def _check_whole(folder: Path) -> None:
    """A shard that is torn would fail on one rank alone; its table of contents is at its end."""
    torn = [path for path in sorted(folder.glob("*.pt")) if not zipfile.is_zipfile(path)]
    if torn:
        raise TrainError([f"resume: {path} cannot be read: it is torn" for path in torn])
