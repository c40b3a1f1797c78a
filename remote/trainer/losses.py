"""The training objectives as pure functions of log-probabilities: nothing here knows a model.

Each returns one value an example (or token); who calls it takes the mean over the global batch.
The definitions' sources are named; `tests/unit/trainer/test_losses.py` holds the exact values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Preference:
    """Losses and implicit rewards, one a pair."""

    losses: Tensor
    chosen: Tensor
    rejected: Tensor


def per_sequence(values: Tensor, counts: Tensor, *, mean: bool = False) -> Tensor:
    """The sum (or mean) of `counts[i]` consecutive values each; 0 where there are none.

    Deterministic on a GPU too, which scattered additions are not.
    """
    sums = torch.segment_reduce(values, "sum", lengths=counts)
    return sums / counts.clamp(min=1) if mean else sums


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Preference:
    """DPO (arXiv 2305.18290) with the smoothing of conservative DPO.

    Given sums over tokens it is `dpo`; given means over tokens it is `dpo_norm` (Tulu 3).
    """
    chosen_reward = beta * (chosen - reference_chosen)
    rejected_reward = beta * (rejected - reference_rejected)
    margin = chosen_reward - rejected_reward
    losses = -(1 - label_smoothing) * F.logsigmoid(margin)
    if label_smoothing:
        losses = losses - label_smoothing * F.logsigmoid(-margin)
    return Preference(losses, chosen_reward, rejected_reward)


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, gamma_beta_ratio: float) -> Preference:
    """SimPO (arXiv 2405.14734) of mean log-probabilities; gamma = beta * gamma_beta_ratio."""
    losses = -F.logsigmoid(beta * (chosen - rejected - gamma_beta_ratio))
    return Preference(losses, beta * chosen, beta * rejected)


def bradley_terry(teacher: Tensor, student: Tensor) -> Tensor:
    """What a discriminator that prefers the teacher minimises (arXiv 2511.10643)."""
    return -F.logsigmoid(teacher - student)


def group_advantage(rewards: Tensor) -> Tensor:
    """GRPO's advantage within each group of the last dimension; equal rewards give 0."""
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True) + 1e-6)


def clipped_policy(
    new: Tensor, old: Tensor, advantage: Tensor, *, clip: float = 0.2, dual: float = 3.0
) -> Tensor:
    """PPO's clipped loss a token; `dual` bounds it where the advantage is negative."""
    ratio = torch.exp(new - old)
    clipped = torch.clamp(ratio, 1 - clip, 1 + clip)
    loss = torch.maximum(-advantage * ratio, -advantage * clipped)
    return torch.where(advantage < 0, torch.minimum(loss, -dual * advantage), loss)


def k3(new: Tensor, reference: Tensor) -> Tensor:
    """Schulman's low-variance estimate of KL(new || reference), a token."""
    log_ratio = reference - new
    return torch.exp(log_ratio) - log_ratio - 1
