"""Supervised fine-tuning: cross-entropy on what the assistant said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from remote.trainer.data.batch import Batch
from remote.trainer.data.rows import Kind
from remote.trainer.losses import per_sequence
from remote.trainer.methods.objective import Share, Totals


@dataclass(frozen=True)
class Sft:
    """The mean over the global batch's learned tokens, or over its sequences' means."""

    reduction: str = "tokens"
    kind: Kind = "chat"

    def __call__(
        self, log_probs: Tensor, batch: Batch, rows: Sequence[int], totals: Totals
    ) -> Share:
        if self.reduction == "tokens":
            return Share(-log_probs.sum() / totals.learned, {})
        means = per_sequence(log_probs, batch.counts, mean=True)
        return Share(-means.sum() / totals.sequences, {})
