"""One step of GAD, top to bottom: play, study, teach the discriminator, teach the policy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from remote.trainer.data.batch import Layout, collate
from remote.trainer.data.order import Order, StepRows
from remote.trainer.data.rows import Store
from remote.trainer.engine import Update
from remote.trainer.learner import StepResult
from remote.trainer.losses import bradley_terry
from remote.trainer.methods.gad import critic as discriminator
from remote.trainer.methods.gad.groups import Group, Stage
from remote.trainer.methods.gad.lessons import Lesson
from remote.trainer.methods.gad.roles import DISCRIMINATOR, Player
from remote.trainer.methods.objective import Totals
from remote.trainer.methods.supervised import MAX_EXPONENT, Sums, batch_of, micro_batches
from remote.trainer.ranks import barrier, device, rank, world
from remote.trainer.schedule import Schedule
from remote.trainer.settings_gad import Gad
from remote.trainer.weights import Weights


@dataclass(frozen=True)
class Plan:
    """What does not change while GAD learns. `names`: see Critic.trained; `extras` adds files
    to a checkpoint."""

    settings: Gad
    order: Order
    micro: int
    eval_micro: int
    layout: Layout
    schedule: Schedule
    critic_schedule: Schedule
    names: dict[str, str]
    extras: Callable[[Path], None]


class GadLearner:
    """Implements `Learner` for both stages; they differ in what the policy learns."""

    def __init__(
        self,
        policy: Player,
        critic: Player,
        *,
        weights: Weights,
        stage: Stage,
        lesson: Lesson,
        plan: Plan,
    ) -> None:
        self._policy, self._critic, self._weights = policy, critic, weights
        self._stage, self._lesson, self._plan = stage, lesson, plan

    def step(self, number: int) -> StepResult:
        began = time.monotonic()
        rows = self._plan.order.step(number)
        micros = rows.share(rank(), world(), self._plan.micro)
        groups = self._stage.play(micros, number)
        played_s = time.monotonic() - began
        told = _told(groups)
        self._lesson.study(groups, number)
        judged, critic = self._teach_critic(groups, told, number)
        learned, policy = self._teach_policy(len(groups), self._totals(rows, told), number)
        loss = learned.pop("loss")
        return StepResult(
            loss=loss,
            grad_norm=(policy or critic).grad_norm,
            skipped=critic.skipped or (policy is not None and policy.skipped),
            learning_rate=self._plan.schedule.rate(number) if policy else 0.0,
            tokens=rows.tokens + int(told["tokens"]),
            data_s=0.0,
            metrics={**judged, **learned, **_about(told), "gad/rollout_s": round(played_s, 6)},
        )

    def evaluate(self, store: Store) -> dict[str, float]:
        """The teacher's answers' loss, and one sampled answer a row: its agreement with the
        teacher's, and whether the discriminator tells the two apart."""
        sums = Sums()
        for rows in micro_batches(len(store), self._plan.eval_micro):
            # A rank with nothing left still takes part: ZeRO-3 gathers weights together.
            sums.add(self._tried(store, rows or [0]), count=bool(rows))
        count = len(store)
        metrics = {name: value / count for name, value in sums.over_ranks().items()}
        loss = metrics["eval_loss"] * count / int(store.counts.sum(dtype="int64"))
        perplexity = {"eval_perplexity": math.exp(loss)} if loss < MAX_EXPONENT else {}
        return {**metrics, "eval_loss": loss, **perplexity}

    def save(self, folder: Path, step: int) -> None:
        self.save_final(folder)
        own = folder / DISCRIMINATOR
        if rank() == 0:
            own.mkdir()
            self._plan.extras(folder)
        barrier()
        self._policy.save(folder, step)
        self._critic.save(own, step)

    def load(self, folder: Path, step: int) -> None:
        self._policy.load(folder, step)
        self._critic.load(folder / DISCRIMINATOR, step)

    def save_final(self, folder: Path) -> None:
        """Policy and discriminator: the adversarial stage begins with both."""
        self._policy.role.dress()
        self._weights.save(folder, self._policy.engine.weights())
        self._critic.role.dress()
        weights = self._critic.engine.weights()
        if weights is not None:
            discriminator.write(folder, weights, self._plan.names)
        barrier()

    def _teach_critic(
        self, groups: Sequence[Group], told: dict[str, float], number: int
    ) -> tuple[dict[str, float], Update]:
        sums = Sums()
        for at, group in enumerate(groups):
            self._critic.role.on(training=True)
            batch = collate(group.judged(), layout=self._plan.layout, device=device())
            scores = self._critic.engine.module(batch).view(len(group.rows), -1)
            losses = bradley_terry(scores[:, :1], scores[:, 1:])
            self._critic.engine.backward(losses.sum() / told["answers"], last=at == len(groups) - 1)
            sums.add(judged(scores.detach(), losses.detach()))
        rate = self._plan.critic_schedule.rate(number)
        update = self._critic.step(rate)
        means = {name: value / told["answers"] for name, value in sums.over_ranks().items()}
        metrics = {f"gad/{name}": value for name, value in means.items()}
        square, mean = metrics.pop("gad/reward_square"), metrics["gad/reward_mean"]
        return {
            **metrics,
            "gad/reward_std": math.sqrt(max(0.0, square - mean**2)),
            "gad/critic_grad_norm": update.grad_norm,
            "gad/critic_learning_rate": rate,
            "gad/critic_skipped": float(update.skipped),
        }, update

    def _teach_policy(
        self, groups: int, totals: Totals, number: int
    ) -> tuple[dict[str, float], Update | None]:
        """None where the discriminator still learns alone: then the loss is only looked at."""
        learns = number >= self._plan.settings.critic_warmup
        rate = self._plan.schedule.rate(number)
        updates = self._plan.settings.updates if learns else 1
        sums, update = Sums(), None
        for _ in range(updates):
            for at in range(groups):
                with torch.set_grad_enabled(learns):
                    share = self._lesson.share(at, totals)
                if learns:
                    self._policy.engine.backward(share.loss, last=at == groups - 1)
                sums.add({"loss": share.loss.detach(), **share.metrics})
            if learns:
                update = self._policy.step(rate)
        means = {name: value / updates for name, value in sums.over_ranks().items()}
        return means, update

    def _totals(self, rows: StepRows, told: dict[str, float]) -> Totals:
        taught = told["answer_tokens"] if self._plan.settings.adversarial else rows.learned
        return Totals(rows=rows.rows, sequences=int(told["answers"]), learned=int(taught))

    def _tried(self, store: Store, rows: Sequence[int]) -> dict[str, Tensor]:
        group = self._stage.try_out(store, rows)
        with torch.no_grad():
            policy = self._policy.role.on(training=False)
            loss = -policy(batch_of(store, rows, self._plan.layout)).sum()
            batch = collate(group.judged(), layout=self._plan.layout, device=device())
            scores = self._critic.role.on(training=False)(batch).view(-1, 2)
        teacher, student = scores.unbind(1)
        seen = group.sums()
        return {
            "eval_loss": loss,
            "eval_d_acc": (teacher > student).sum(),
            "eval_score_gap": (teacher - student).sum(),
            "eval_agreement": seen["agreement"],
            "eval_answer_tokens": seen["answer_tokens"],
            "eval_cut": seen["cut"],
        }


def _told(groups: Sequence[Group]) -> dict[str, float]:
    sums = Sums()
    for group in groups:
        sums.add(group.sums())
    return sums.over_ranks()


def _about(told: dict[str, float]) -> dict[str, float]:
    return {
        "gad/agreement": told["agreement"] / told["prompts"],
        "gad/answer_tokens": told["answer_tokens"] / told["answers"],
        "gad/cut": told["cut"] / told["answers"],
        "gad/distinct": told["distinct"] / told["answers"],
    }


def judged(scores: Tensor, losses: Tensor) -> dict[str, Tensor]:
    """Sums over pairs of the teacher's and one of the student's answers."""
    teacher, student = scores[:, :1], scores[:, 1:]
    pairs = student.shape[1]
    spread = student.std(1).sum() * pairs if pairs > 1 else student.sum() * 0
    return {
        "d_loss": losses.sum(),
        "d_acc": (teacher > student).sum(),
        "teacher_score": teacher.sum() * pairs,
        "reward_mean": student.sum(),
        "reward_square": student.double().square().sum(),
        "group_std": spread,
    }
