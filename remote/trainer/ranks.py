"""The ranks of a run: who this one is, and the few things they do together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist

from remote.trainer import setup
from remote.trainer.problems import TrainError

T = TypeVar("T")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    return torch.device("cuda", setup.local_rank()) if torch.cuda.is_available() else CPU


def barrier() -> None:
    """Wait for every rank; nothing to wait for in a run of one."""
    if dist.is_initialized():
        dist.barrier()


def sum_over_ranks(values: Mapping[str, float]) -> dict[str, float]:
    """Add up each value over all ranks, which give the same names; one collective."""
    if world() == 1:
        return dict(values)
    numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=device())
    dist.all_reduce(numbers)
    return dict(zip(values, numbers.tolist(), strict=True))


def any_rank(flag: bool) -> bool:
    """Whether it is true on at least one rank."""
    if world() == 1:
        return flag
    asked = torch.tensor([int(flag)], device=device())
    dist.all_reduce(asked, op=dist.ReduceOp.MAX)
    return bool(asked.item())


def together(work: Callable[[], T]) -> T:
    """Do `work` on every rank; when it is impossible on one, say why on all.

    A rank that ends alone leaves the others waiting in a collective until it times out.
    """
    result: list[T] = []
    problems: tuple[str, ...] = ()
    try:
        result.append(work())
    except TrainError as error:
        problems = error.problems
    said = _gathered(problems)
    if said:
        raise TrainError(dict.fromkeys(said))
    return result[0]


def _gathered(problems: tuple[str, ...]) -> list[str]:
    if world() == 1:
        return list(problems)
    everyone: list[tuple[str, ...]] = [()] * world()
    dist.all_gather_object(everyone, problems)
    return [problem for each in everyone for problem in each]


CPU = torch.device("cpu")
