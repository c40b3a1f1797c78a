"""The learner of SFT, DPO and SimPO: one policy, one forward and backward a micro batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from remote.trainer.data.batch import Batch, Layout, collate
from remote.trainer.data.order import Order
from remote.trainer.data.rows import Store
from remote.trainer.engine import Engine
from remote.trainer.learner import StepResult
from remote.trainer.methods.objective import Objective, Totals
from remote.trainer.ranks import device, rank, sum_over_ranks, world
from remote.trainer.schedule import Schedule
from remote.trainer.weights import Weights

MAX_EXPONENT = 700


@dataclass(frozen=True)
class Feed:
    """Where micro batches come from. `micro`: items in one; `layout`: what the model takes."""

    store: Store
    order: Order
    micro: int
    layout: Layout

    def batch(self, rows: Sequence[int]) -> Batch:
        return batch_of(self.store, rows, self.layout)


class Supervised:
    """Implements `Learner`. `extras` adds files to a checkpoint that the method needs back."""

    def __init__(
        self,
        engine: Engine,
        weights: Weights,
        *,
        objective: Objective,
        feed: Feed,
        schedule: Schedule,
        eval_micro: int,
        eval_objective: Objective | None = None,
        extras: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        self._engine, self._weights, self._objective = engine, weights, objective
        self._feed, self._schedule, self._eval_micro = feed, schedule, eval_micro
        self._eval_objective = eval_objective or objective
        self._extras = extras

    def step(self, number: int) -> StepResult:
        self._engine.module.train()
        rows = self._feed.order.step(number)
        totals = Totals(rows.rows, rows.sequences, rows.learned)
        micros = rows.share(rank(), world(), self._feed.micro)
        sums, data_s = Sums(), 0.0
        for at, members in enumerate(micros):
            began = time.monotonic()
            batch = self._feed.batch(members)
            data_s += time.monotonic() - began
            share = self._objective(self._engine.module(batch), batch, members, totals)
            self._engine.backward(share.loss, last=at == len(micros) - 1)
            sums.add({"loss": share.loss.detach(), **share.metrics})
        rate = self._schedule.rate(number)
        update = self._engine.step(rate)
        metrics = sums.over_ranks()
        return StepResult(
            loss=metrics.pop("loss"),
            grad_norm=update.grad_norm,
            skipped=update.skipped,
            learning_rate=rate,
            tokens=rows.tokens,
            data_s=data_s,
            metrics=metrics,
        )

    def evaluate(self, store: Store) -> dict[str, float]:
        """`eval_loss` and the method's metrics, over all of `store`."""
        count = len(store)
        totals = Totals(count, count * store.parts, int(store.counts.sum(dtype="int64")))
        self._engine.module.eval()
        sums = Sums()
        with torch.no_grad():
            for rows in micro_batches(count, self._eval_micro):
                # A rank with nothing left still takes part: ZeRO-3 gathers weights together.
                members = rows or [0]
                batch = batch_of(store, members, self._feed.layout)
                log_probs = self._engine.module(batch)
                share = self._eval_objective(log_probs, batch, members, totals)
                surprise = -log_probs.sum() / totals.learned
                values = {"loss": share.loss, "surprise": surprise, **share.metrics}
                sums.add(values, count=bool(rows))
        found = sums.over_ranks()
        surprise_mean = found.pop("surprise")  # a token's, whatever the loss is a mean of
        metrics = {f"eval_{name}": value for name, value in found.items()}
        if self._eval_objective.kind == "chat" and surprise_mean < MAX_EXPONENT:
            metrics["eval_perplexity"] = math.exp(surprise_mean)
        return metrics

    def save(self, folder: Path, step: int) -> None:
        self._weights.save(folder, self._engine.weights())
        self._engine.save(folder, step)
        if rank() == 0:
            self._extras(folder)

    def load(self, folder: Path, step: int) -> None:
        self._engine.load(folder, step)

    def save_final(self, folder: Path) -> None:
        self._weights.save(folder, self._engine.weights())


class Sums:
    """Adds up values of micro batches where they are, and asks the device for them once."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor], *, count: bool = True) -> None:
        for name, value in values.items():
            self._values[name] = self._values.get(name, 0.0) + value.double() * count

    def over_ranks(self) -> dict[str, float]:
        if not self._values:
            return {}
        numbers = torch.stack(list(self._values.values())).tolist()
        return sum_over_ranks(dict(zip(self._values, numbers, strict=True)))


def batch_of(store: Store, rows: Sequence[int], layout: Layout) -> Batch:
    """Rows of a store as one micro batch; a row's parts follow each other."""
    parts = [part for row in rows for part in store.row(row)]
    return collate(parts, layout=layout, device=device())


def micro_batches(count: int, micro: int) -> Iterator[list[int]]:
    """This rank's rows of `count`, in as many micro batches as every rank has."""
    for first in range(0, count, micro * world()):
        begin = first + rank() * micro
        yield list(range(begin, min(begin + micro, count)))
