"""What GAD is told, beside what every method is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.trainer.problems import Problems

STAGES = ("warmup", "adversarial")
# Policy and discriminator are both held this tight by the paper's scripts.
MAX_GRAD_NORM = 0.2
# Steps that train the discriminator alone, by stage.
CRITIC_WARMUP = {"warmup": 10, "adversarial": 0}


@dataclass(frozen=True)
class Gad:
    """Defaults are those of the paper's scripts. `critic_learning_rate` None: the policy's.

    `warmup_from`: a checkpoint or the final folder of a warm-up, which the adversarial stage
    begins with. `updates`: policy updates from one step's rollouts. `rollout_batch`: answers
    generated at once. `shuffle_rewards` is the control experiment: each answer gets the reward of
    another answer to the same prompt, so what is still learned is not learned from the reward.
    """

    stage: str = "warmup"
    rollouts: int = 8
    temperature: float = 0.8
    max_new_tokens: int = 512
    critic_warmup: int = CRITIC_WARMUP["warmup"]
    critic_learning_rate: float | None = None
    kl: float = 0.001
    clip: float = 0.2
    dual_clip: float = 3.0
    updates: int = 1
    rollout_batch: int = 64
    shuffle_rewards: bool = False
    warmup_from: Path | None = None

    @property
    def adversarial(self) -> bool:
        return self.stage == "adversarial"

    @property
    def refers(self) -> bool:
        """Whether a frozen reference policy is needed."""
        return self.adversarial and self.kl > 0


def parse(given: Mapping[str, Any], problems: Problems) -> Gad:
    """Read `gad`; note every problem."""
    problems.unknown(given, tuple(Gad.__dataclass_fields__), "gad.")
    stage = _stage(given, problems)
    gad = Gad(
        stage=stage,
        rollouts=problems.whole(given, "rollouts", "gad.") or Gad.rollouts,
        temperature=_above(given, "temperature", problems, least=0),
        max_new_tokens=problems.whole(given, "max_new_tokens", "gad.") or Gad.max_new_tokens,
        critic_warmup=_critic_warmup(given, stage, problems),
        critic_learning_rate=_critic_learning_rate(given, problems),
        kl=_kl(given, problems),
        clip=_above(given, "clip", problems, least=0),
        dual_clip=_above(given, "dual_clip", problems, least=1),
        updates=problems.whole(given, "updates", "gad.") or Gad.updates,
        rollout_batch=problems.whole(given, "rollout_batch", "gad.") or Gad.rollout_batch,
        shuffle_rewards=problems.flag(given, "shuffle_rewards", "gad."),
        warmup_from=_warmup_from(given, stage, problems),
    )
    if gad.adversarial and gad.rollouts < 2:
        problems.add("gad.rollouts: must be at least 2: an answer is judged against the others")
    return gad


def _stage(given: Mapping[str, Any], problems: Problems) -> str:
    stage = given.get("stage", Gad.stage)
    if stage in STAGES:
        return str(stage)
    problems.add(f"gad.stage: must be one of {', '.join(STAGES)}, not {stage!r}")
    return Gad.stage


def _above(given: Mapping[str, Any], key: str, problems: Problems, *, least: float) -> float:
    value = problems.number(given, key, "gad.", default=getattr(Gad, key))
    if value <= least:
        problems.add(f"gad.{key}: must be more than {least}")
    return value


def _kl(given: Mapping[str, Any], problems: Problems) -> float:
    value = problems.number(given, "kl", "gad.", default=Gad.kl)
    if value < 0:
        problems.add("gad.kl: must not be negative")
    return value


def _critic_warmup(given: Mapping[str, Any], stage: str, problems: Problems) -> int:
    value = given.get("critic_warmup")
    if value is None:
        return CRITIC_WARMUP[stage]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        problems.add("gad.critic_warmup: must be a whole number of at least 0")
        return CRITIC_WARMUP[stage]
    return value


def _critic_learning_rate(given: Mapping[str, Any], problems: Problems) -> float | None:
    if given.get("critic_learning_rate") is None:
        return None
    value = problems.number(given, "critic_learning_rate", "gad.", default=0.0)
    if value < 0:
        problems.add("gad.critic_learning_rate: must not be negative")
    return value


def _warmup_from(given: Mapping[str, Any], stage: str, problems: Problems) -> Path | None:
    folder = problems.text(given, "warmup_from", "gad.")
    if stage == "adversarial" and folder is None:
        problems.add(
            "gad.warmup_from: is missing; the adversarial stage begins with a warm-up's policy and"
            " discriminator: name its output folder, or one of its checkpoints"
        )
    if stage == "warmup" and folder is not None:
        problems.add("gad.warmup_from: is for the adversarial stage; the stage is warmup")
    return Path(folder) if folder else None
