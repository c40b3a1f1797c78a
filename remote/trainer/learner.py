"""What the loop drives: one global step at a time, whatever the method does in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from remote.trainer.data.rows import Store


@dataclass(frozen=True)
class StepResult:
    """One global step, the same on every rank. `tokens` are those of the global batch, none of
    them padding; `data_s` is what this rank waited for data."""

    loss: float
    grad_norm: float
    skipped: bool
    learning_rate: float
    tokens: int
    data_s: float
    metrics: Mapping[str, float] = field(default_factory=dict)


class Learner(Protocol):
    """All of it is called on every rank at once."""

    def step(self, number: int) -> StepResult:
        """Train on the global batch of step `number`, counted from 0."""

    def evaluate(self, store: Store) -> dict[str, float]:
        """Metrics over a whole store, named `eval_…`; nothing is trained."""

    def save(self, folder: Path, step: int) -> None:
        """Write weights, optimizers and what else a resume needs below `folder`."""

    def load(self, folder: Path, step: int) -> None:
        """Read what `save` wrote after `step` steps, except weights that were loaded from it."""

    def save_final(self, folder: Path) -> None:
        """Write the weights, and what is needed to use them, into `folder`."""
