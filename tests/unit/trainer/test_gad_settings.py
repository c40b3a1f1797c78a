"""What `gad` may say, and that each mistake is named before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remote.trainer.problems import TrainError
from remote.trainer.settings import parse
from remote.trainer.settings_gad import Gad

GOOD: dict[str, Any] = {"method": "gad", "model": "m", "data": "d.jsonl", "full": True}


def test_the_defaults_are_the_papers() -> None:
    settings = parse(GOOD)
    assert settings.gad == Gad(
        stage="warmup",
        rollouts=8,
        temperature=0.8,
        max_new_tokens=512,
        critic_warmup=10,
        critic_learning_rate=None,
        kl=0.001,
        clip=0.2,
        dual_clip=3.0,
    )
    assert (settings.learning_rate, settings.args.max_grad_norm) == (1e-6, 0.2)
    assert not settings.gad.refers


def test_the_adversarial_stage_trains_the_policy_at_once() -> None:
    gad = {"stage": "adversarial", "warmup_from": "w"}
    settings = parse({**GOOD, "gad": gad, "args": {"max_grad_norm": 1.0}})
    assert (settings.gad.critic_warmup, settings.gad.warmup_from) == (0, Path("w"))
    assert settings.args.max_grad_norm == 1.0
    assert settings.gad.refers
    assert not parse({**GOOD, "gad": {**gad, "kl": 0}}).gad.refers
    assert parse({**GOOD, "gad": {**gad, "critic_warmup": 3}}).gad.critic_warmup == 3


@pytest.mark.parametrize(
    ("gad", "problem"),
    [
        ({"stage": "adversary"}, "gad.stage: must be one of warmup, adversarial"),
        ({"stage": "adversarial"}, "gad.warmup_from: is missing; the adversarial stage begins"),
        ({"warmup_from": "w"}, "gad.warmup_from: is for the adversarial stage"),
        (
            {"stage": "adversarial", "warmup_from": "w", "rollouts": 1},
            "gad.rollouts: must be at least 2: an answer is judged against the others",
        ),
        ({"rollouts": 0}, "gad.rollouts: must be a whole number of at least 1"),
        ({"max_new_tokens": 1.5}, "gad.max_new_tokens: must be a whole number of at least 1"),
        ({"temperature": 0}, "gad.temperature: must be more than 0"),
        ({"temperature": "hot"}, "gad.temperature: must be a number"),
        ({"clip": 0}, "gad.clip: must be more than 0"),
        ({"dual_clip": 1}, "gad.dual_clip: must be more than 1"),
        ({"kl": -0.1}, "gad.kl: must not be negative"),
        ({"critic_warmup": -1}, "gad.critic_warmup: must be a whole number of at least 0"),
        ({"critic_learning_rate": -1}, "gad.critic_learning_rate: must not be negative"),
        ({"updates": 0}, "gad.updates: must be a whole number of at least 1"),
        ({"rollout_batch": 0}, "gad.rollout_batch: must be a whole number of at least 1"),
        ({"shuffle_rewards": 1}, "gad.shuffle_rewards: must be true or false"),
        ({"rolouts": 4}, "gad.rolouts: unknown key; did you mean rollouts?"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_named(gad: dict[str, Any], problem: str) -> None:
    with pytest.raises(TrainError) as caught:
        parse({**GOOD, "gad": gad})
    assert [each[: len(problem)] for each in caught.value.problems] == [problem]


def test_all_mistakes_at_once() -> None:
    with pytest.raises(TrainError) as caught:
        parse({**GOOD, "packing": True, "gad": {"kl": -1, "clip": 0, "stage": 3}})
    assert len(caught.value.problems) == 4
