"""SimPO: preferences by mean log-probability, without a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from remote.trainer.data.batch import Batch
from remote.trainer.data.rows import Kind
from remote.trainer.losses import per_sequence, simpo
from remote.trainer.methods.objective import Share, Totals
from remote.trainer.methods.preference import pairs, share
from remote.trainer.settings import Simpo as SimpoSettings


@dataclass(frozen=True)
class Simpo:
    settings: SimpoSettings
    kind: Kind = "pairs"

    def __call__(
        self, log_probs: Tensor, batch: Batch, rows: Sequence[int], totals: Totals
    ) -> Share:
        means = per_sequence(log_probs, batch.counts, mean=True)
        preference = simpo(
            *pairs(means),
            beta=self.settings.beta,
            gamma_beta_ratio=self.settings.gamma_beta_ratio,
        )
        return share(preference, means, totals)
