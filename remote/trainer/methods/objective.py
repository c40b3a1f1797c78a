"""A method in one function: log-probabilities in, this micro batch's share of the loss out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from remote.trainer.data.batch import Batch
from remote.trainer.data.rows import Kind


@dataclass(frozen=True)
class Totals:
    """The global batch's sizes, which every share is divided by."""

    rows: int
    sequences: int
    learned: int


@dataclass(frozen=True)
class Share:
    """What one micro batch adds to the step's loss, and to each of its metrics."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Objective(Protocol):
    @property
    def kind(self) -> Kind:
        """The rows it learns from."""

    def __call__(
        self, log_probs: Tensor, batch: Batch, rows: Sequence[int], totals: Totals
    ) -> Share:
        """Shares of all micro batches of all ranks add up to exactly the loss of the step."""
