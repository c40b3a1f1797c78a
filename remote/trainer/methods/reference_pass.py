"""The pass over the data that gives DPO its reference, before the first step."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from remote.trainer.data.rows import Store
from remote.trainer.losses import per_sequence
from remote.trainer.methods.reference import Reference
from remote.trainer.methods.supervised import Feed, batch_of, micro_batches
from remote.trainer.ranks import device, rank, world

TOLD_EVERY = 50


def for_training(
    module: nn.Module, feed: Feed, *, steps: int, fingerprint: str, lm: Any
) -> Reference:
    """For every row of the first `steps` steps, in the micro batches that training will use: so
    the first loss is ln 2 to the last bit, in any precision."""
    steps = min(steps, math.ceil(feed.order.items / len(feed.order.step(0).items)))
    batches = (
        rows
        for number in range(steps)
        for rows in feed.order.step(number).share(rank(), world(), feed.micro)
    )
    return _compute(module, feed.store, batches, feed=feed, fingerprint=fingerprint, lm=lm)


def for_evaluation(
    module: nn.Module, store: Store, feed: Feed, *, micro: int, fingerprint: str, lm: Any
) -> Reference:
    """For every row of a held-out store."""
    batches = micro_batches(len(store), micro)
    return _compute(module, store, batches, feed=feed, fingerprint=fingerprint, lm=lm)


def _compute(
    module: nn.Module,
    store: Store,
    batches: Iterable[list[int]],
    *,
    feed: Feed,
    fingerprint: str,
    lm: Any,
) -> Reference:
    began = time.monotonic()
    sums = torch.zeros(len(store), 3, dtype=torch.float64)
    module.eval()
    with torch.no_grad(), _start_weights(lm):
        for number, rows in enumerate(batches):
            _tell(number)
            batch = batch_of(store, rows or [0], feed.layout)
            values = per_sequence(module(batch), batch.counts).view(-1, 2).double().cpu()
            if rows:
                sums[rows] = torch.cat([values, torch.ones(len(rows), 1)], dim=1).double()
    if world() > 1:
        shared = sums.to(device())
        dist.all_reduce(shared)
        sums = shared.cpu()
    known = sums[:, 2:]
    if rank() == 0:
        pairs, took = int((known > 0).sum()), time.monotonic() - began
        print(f"reference log-probabilities of {pairs:,} pairs: {took:.3f} s", flush=True)
    means = torch.where(known > 0, sums[:, :2] / known.clamp(min=1), torch.nan)
    return Reference(np.ascontiguousarray(means.float().numpy()), fingerprint)


def _start_weights(lm: Any) -> contextlib.AbstractContextManager[Any]:
    return lm.disable_adapter() if hasattr(lm, "disable_adapter") else contextlib.nullcontext()


def _tell(number: int) -> None:
    if rank() == 0 and number and number % TOLD_EVERY == 0:
        print(f"reference log-probabilities: micro batch {number}", flush=True)
