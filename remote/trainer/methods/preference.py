"""What DPO and SimPO share: pairs laid out chosen, rejected, chosen, … and their metrics."""

from __future__ import annotations

from torch import Tensor

from remote.trainer.losses import Preference
from remote.trainer.methods.objective import Share, Totals


def pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Chosen and rejected, from one value a sequence."""
    chosen, rejected = values.view(-1, 2).unbind(1)
    return chosen, rejected


def share(preference: Preference, log_probs: Tensor, totals: Totals) -> Share:
    """The mean over pairs, with the metrics that preference training is judged by."""
    chosen, rejected = preference.chosen.detach(), preference.rejected.detach()
    chosen_log_probs, rejected_log_probs = pairs(log_probs.detach())
    sums = {
        "rewards/chosen": chosen.sum(),
        "rewards/rejected": rejected.sum(),
        "rewards/accuracies": (chosen > rejected).sum(),
        "rewards/margins": (chosen - rejected).sum(),
        "logps/chosen": chosen_log_probs.sum(),
        "logps/rejected": rejected_log_probs.sum(),
    }
    metrics = {name: value / totals.rows for name, value in sums.items()}
    return Share(preference.losses.sum() / totals.rows, metrics)
