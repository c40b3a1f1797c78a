"""What a step does to weights, behind one interface: plain torch here, DeepSpeed beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from remote.trainer import saved
from remote.trainer.args import EIGHT_BIT, Args
from remote.trainer.problems import TrainError
from remote.trainer.ranks import barrier, rank, together, world

OPTIMIZER = "optimizer.pt"
BUCKET_ELEMENTS = 2**25


@dataclass(frozen=True)
class Update:
    """What a step did. `grad_norm` is that of the whole gradient before clipping."""

    grad_norm: float
    skipped: bool


class Engine(Protocol):
    """Forwards go through `module`, which is what was wrapped.

    The losses of all micro batches of all ranks have to add up to the step's loss: they are
    divided by the totals of the global batch before they come here, and by nothing here.
    """

    module: nn.Module

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add one micro batch's gradient; `last` of the step on this rank."""

    def step(self, rate: float) -> Update:
        """Update the weights; a gradient that is not finite is dropped. All ranks together."""

    def save(self, folder: Path, step: int) -> None:
        """Write optimizer (and what else the engine needs) below `folder`. All ranks together."""

    def load(self, folder: Path, step: int) -> None:
        """Read what `save` wrote. All ranks together. Raises TrainError where it is not whole."""

    def weights(self) -> dict[str, Tensor] | None:
        """The trained weights by their names in `module`, whole; None but on rank 0."""


class Plain:
    """Torch alone: one rank, or several whose gradients are summed once a step."""

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, *, max_grad_norm: float
    ) -> None:
        self.module = module
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        self._parameters = [each for group in optimizer.param_groups for each in group["params"]]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        loss.backward()

    def step(self, rate: float) -> Update:
        gradients = self._gradients()
        norm = torch.nn.utils.get_total_norm(gradients)
        size = float(norm)
        skipped = not math.isfinite(size)
        if not skipped:
            if self._max_grad_norm > 0:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self._max_grad_norm, norm)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return Update(size, skipped)

    def save(self, folder: Path, step: int) -> None:
        if rank() == 0:
            torch.save(self._optimizer.state_dict(), folder / OPTIMIZER)
        barrier()

    def load(self, folder: Path, step: int) -> None:
        together(lambda: self._load(folder))

    def weights(self) -> dict[str, Tensor] | None:
        return dict(self.module.state_dict()) if rank() == 0 else None

    def _load(self, folder: Path) -> None:
        path = folder / OPTIMIZER
        if not path.is_file():
            raise TrainError(
                [
                    f"resume: {folder} holds no {OPTIMIZER}; it was saved under DeepSpeed or is"
                    " not whole: resume it with the same `deepspeed`"
                ]
            )

        def restore(state: dict[str, Any]) -> None:
            _check_groups(state, self._optimizer, folder)
            self._optimizer.load_state_dict(state)

        saved.read(path, restore, device=self._parameters[0].device)

    def _gradients(self) -> list[Tensor]:
        if world() == 1:
            return [each.grad for each in self._parameters if each.grad is not None]
        for each in self._parameters:
            if each.grad is None:  # as a rank may have used what another has not
                each.grad = torch.zeros_like(each)
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([each.reshape(-1) for each in bucket])
            dist.all_reduce(flat)
            parts = flat.split([each.numel() for each in bucket])
            for each, part in zip(bucket, parts, strict=True):
                each.copy_(part.view_as(each))
        return gradients


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What is trained, in two groups: matrices decay; biases and norms do not."""
    trained = [each for each in module.parameters() if each.requires_grad]
    # Under ZeRO-3 a parameter is flat, and remembers its shape here.
    dims = [len(getattr(each, "ds_shape", each.shape)) for each in trained]
    matrices = [each for each, dim in zip(trained, dims, strict=True) if dim > 1]
    others = [each for each, dim in zip(trained, dims, strict=True) if dim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(
    groups: Iterable[Mapping[str, Any]], args: Args, *, rate: float
) -> torch.optim.Optimizer:
    """AdamW, fused, or in 8 bits when asked for."""
    options: dict[str, Any] = {
        "lr": rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
    }
    own = [dict(group) for group in groups]
    if args.optim not in EIGHT_BIT:
        return torch.optim.AdamW(own, fused=args.optim == "adamw_torch_fused", **options)
    try:
        import bitsandbytes as bnb  # an optional package, and a heavy one
    except ImportError as error:
        raise TrainError(
            [f"args.optim: {args.optim} needs bitsandbytes, which is not installed here"]
        ) from error
    return bnb.optim.AdamW8bit(own, is_paged=args.optim.startswith("paged"), **options)


def _check_groups(state: Mapping[str, Any], optimizer: torch.optim.Optimizer, folder: Path) -> None:
    theirs = [len(group["params"]) for group in state["param_groups"]]
    ours = [len(group["params"]) for group in optimizer.param_groups]
    if theirs != ours:
        raise TrainError(
            [
                f"resume: {folder} was saved with {sum(theirs)} trained tensors and this run"
                f" trains {sum(ours)}; it is a checkpoint of another model or other adapters"
            ]
        )


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype together, up to a size: few collectives, little memory."""
    bucket: list[Tensor] = []
    size = 0
    for each in tensors:
        if bucket and (each.dtype != bucket[0].dtype or size + each.numel() > BUCKET_ELEMENTS):
            yield bucket
            bucket, size = [], 0
        bucket.append(each)
        size += each.numel()
    if bucket:
        yield bucket
