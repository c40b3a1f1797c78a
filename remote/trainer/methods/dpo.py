"""Direct preference optimisation against reference log-probabilities known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from remote.trainer.data.batch import Batch
from remote.trainer.data.rows import Kind
from remote.trainer.losses import dpo, per_sequence
from remote.trainer.methods.objective import Share, Totals
from remote.trainer.methods.preference import pairs, share
from remote.trainer.methods.reference import Reference
from remote.trainer.settings import Dpo as DpoSettings


@dataclass(frozen=True)
class Dpo:
    """DPO of sums, or of means over tokens when `norm` is set."""

    settings: DpoSettings
    reference: Reference
    kind: Kind = "pairs"

    def __call__(
        self, log_probs: Tensor, batch: Batch, rows: Sequence[int], totals: Totals
    ) -> Share:
        ours = per_sequence(log_probs, batch.counts)
        reference = self.reference.of(rows, device=log_probs.device)
        if self.settings.norm:
            counts = batch.counts.clamp(min=1)
            ours, reference = ours / counts, reference / counts
        preference = dpo(
            *pairs(ours),
            *pairs(reference),
            beta=self.settings.beta,
            label_smoothing=self.settings.label_smoothing,
        )
        return share(preference, ours, totals)
