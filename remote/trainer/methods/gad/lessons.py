"""What the policy learns of a step's groups, by stage.

`study` comes before the discriminator learns from the same groups, `share` after it: rewards are
those of the discriminator that the answers were meant for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from remote.trainer.data.batch import Batch, Layout, collate
from remote.trainer.losses import clipped_policy, group_advantage, k3
from remote.trainer.methods.gad.groups import FOR_SHUFFLING, Group
from remote.trainer.methods.gad.roles import Role
from remote.trainer.methods.objective import Share, Totals
from remote.trainer.ranks import device
from remote.trainer.settings_gad import Gad


class Lesson(Protocol):
    def study(self, groups: Sequence[Group], number: int) -> None:
        """Look at the groups of step `number` while nobody has learned from them."""

    def share(self, at: int, totals: Totals) -> Share:
        """What group `at` adds to the policy's loss, and to the step's metrics."""


class WarmUp:
    """The policy learns the teacher's answers themselves; `totals.learned` are their tokens."""

    def __init__(self, policy: Role, layout: Layout) -> None:
        self._policy, self._layout = policy, layout
        self._groups: Sequence[Group] = ()

    def study(self, groups: Sequence[Group], number: int) -> None:
        self._groups = groups

    def share(self, at: int, totals: Totals) -> Share:
        batch = collate(self._groups[at].teachers, layout=self._layout, device=device())
        log_probs = self._policy.on(training=True)(batch)
        return Share(-log_probs.sum() / totals.learned, {})


@dataclass(frozen=True)
class _Studied:
    """The student's answers, by token: what was likely before, and what each was worth."""

    batch: Batch
    old: Tensor
    reference: Tensor | None
    advantage: Tensor


class Adversarial:
    """The policy learns from what the discriminator thinks of its own answers;
    `totals.learned` are their tokens."""

    def __init__(
        self,
        policy: Role,
        critic: Role,
        reference: Role | None,
        *,
        layout: Layout,
        settings: Gad,
        seed: int,
    ) -> None:
        self._policy, self._critic, self._reference = policy, critic, reference
        self._layout, self._settings, self._seed = layout, settings, seed
        self._studied: list[_Studied] = []

    def study(self, groups: Sequence[Group], number: int) -> None:
        batches = [collate(each.students, layout=self._layout, device=device()) for each in groups]
        with torch.no_grad():
            old = [self._log_probs(self._policy, batch, training=False) for batch in batches]
            reference = [
                self._log_probs(self._reference, batch, training=False)
                if self._reference is not None
                else None
                for batch in batches
            ]
            critic = self._critic.on(training=False)
            rewards = [
                self._shuffled(critic(batch).view(len(group.rows), -1), group, number)
                for batch, group in zip(batches, groups, strict=True)
            ]
        advantages = [
            torch.repeat_interleave(group_advantage(each).view(-1), batch.counts)
            for each, batch in zip(rewards, batches, strict=True)
        ]
        together = zip(batches, old, reference, advantages, strict=True)
        self._studied = [_Studied(*each) for each in together]

    def share(self, at: int, totals: Totals) -> Share:
        settings, this = self._settings, self._studied[at]
        new = self._log_probs(self._policy, this.batch, training=True)
        losses = clipped_policy(
            new, this.old, this.advantage, clip=settings.clip, dual=settings.dual_clip
        )
        sums = {
            "gad/pg_loss": losses.detach().sum(),
            "gad/old_kl": (this.old - new.detach()).sum(),
            "gad/clip_fraction": self._clipped(new.detach(), this).sum(),
            "gad/surprise": -this.old.sum(),
        }
        if this.reference is not None:
            divergence = k3(new, this.reference)
            losses = losses + settings.kl * divergence
            sums["gad/kl"] = divergence.detach().sum()
        metrics = {name: value / totals.learned for name, value in sums.items()}
        return Share(losses.sum() / totals.learned, metrics)

    def _log_probs(self, role: Role, batch: Batch, *, training: bool) -> Tensor:
        """Of the distribution that was sampled from, in all three places."""
        log_probs: Tensor = role.on(training=training)(batch, self._settings.temperature)
        return log_probs

    def _clipped(self, new: Tensor, this: _Studied) -> Tensor:
        """Whether a token is past the clip, where it teaches nothing more."""
        ratio = torch.exp(new - this.old)
        clip = self._settings.clip
        return torch.where(this.advantage > 0, ratio > 1 + clip, ratio < 1 - clip)

    def _shuffled(self, rewards: Tensor, group: Group, number: int) -> Tensor:
        if not self._settings.shuffle_rewards:
            return rewards
        keys = [[self._seed, FOR_SHUFFLING, number, row] for row in group.rows]
        orders = [np.random.Generator(np.random.PCG64(key)).permutation(group.size) for key in keys]
        return rewards.gather(1, torch.from_numpy(np.stack(orders)).to(rewards.device))
