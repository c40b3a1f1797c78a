"""Puts GAD together: models, engines, roles, the stage's lesson."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from remote.trainer.build import Parts, make_engine
from remote.trainer.data.encode import Encoder
from remote.trainer.data.prepare import recipe_of
from remote.trainer.data.rows import Request
from remote.trainer.learner import Learner
from remote.trainer.methods.gad import models, start
from remote.trainer.methods.gad.groups import Stage
from remote.trainer.methods.gad.learner import GadLearner, Plan
from remote.trainer.methods.gad.lessons import Adversarial, Lesson, WarmUp
from remote.trainer.methods.gad.models import Models
from remote.trainer.methods.gad.roles import REFERENCE, Player, Role, put_on
from remote.trainer.methods.gad.rollout import Rollouts, Sampling
from remote.trainer.problems import TrainError
from remote.trainer.ranks import world
from remote.trainer.weights import Weights


def build(parts: Parts) -> tuple[Learner, Any]:
    """The learner, as far as `parts.origin` had come, and the policy's model. Raises TrainError."""
    _check_room(parts)
    begin = start.find(parts.settings, parts.origin, parts.output)
    loaded = models.load(parts, begin)
    policy = _player(loaded.policy, loaded.policy.lm, loaded.policy_adapter, parts)
    critic = _player(loaded.critic, loaded.critic.policy.lm, loaded.critic_adapter, parts)
    learner = GadLearner(
        policy,
        critic,
        weights=Weights(loaded.policy.lm, parts.tokenizer),
        stage=_stage(parts, loaded, policy.role),
        lesson=_lesson(parts, loaded, policy.role, critic.role),
        plan=_plan(parts, loaded, critic.role),
    )
    if parts.origin is not None:
        learner.load(parts.origin.folder, parts.origin.step)
    return learner, loaded.policy.lm


def _player(module: nn.Module, lm: Any, adapter: str | None, parts: Parts) -> Player:
    put_on(lm, adapter)  # the engine trains what can be trained now
    engine = make_engine(module, parts)
    return Player(Role(engine.module, lm, adapter), engine)


def _check_room(parts: Parts) -> None:
    """A prompt and the longest answer have to fit into the model's positions."""
    known = getattr(parts.config, "max_position_embeddings", None)
    prompts = (parts.store.lengths - parts.store.counts).max()
    new = parts.settings.gad.max_new_tokens
    if known is not None and prompts + new > known:
        raise TrainError(
            [
                f"gad.max_new_tokens: the longest prompt has {prompts} tokens, and {new} more do"
                f" not fit into the model's {known} positions; say {max(1, known - prompts)} or"
                " less, or lower max_seq_length"
            ]
        )


def _stage(parts: Parts, loaded: Models, policy: Role) -> Stage:
    gad = parts.settings.gad
    pad = parts.tokenizer.pad_token_id
    sampling = Sampling(
        temperature=gad.temperature,
        max_new_tokens=gad.max_new_tokens,
        ends=ends(parts, loaded.policy.lm),
        pad=int(parts.tokenizer.eos_token_id if pad is None else pad),
        together=gad.rollout_batch,
        synced=models.stage(parts) == 3 and world() > 1,
    )
    rollouts = Rollouts(policy, loaded.policy, sampling)
    seed = parts.settings.args.seed
    return Stage(parts.store, rollouts, gad.rollouts, gad.max_new_tokens, seed)


def ends(parts: Parts, lm: Any) -> frozenset[int]:
    """What template, tokenizer and model end an answer with. Raises TrainError."""
    settings = parts.settings
    request = Request(
        files=(),
        kind="distill",
        max_length=settings.max_seq_length,
        template=settings.template,
        cache=Path(),
    )
    stop = Encoder(recipe_of(request, parts.tokenizer)).stop()
    own = getattr(lm.generation_config, "eos_token_id", None)
    listed = own if isinstance(own, list) else [own] if own is not None else []
    return frozenset([stop, int(parts.tokenizer.eos_token_id), *listed])


def _lesson(parts: Parts, loaded: Models, policy: Role, critic: Role) -> Lesson:
    gad = parts.settings.gad
    if not gad.adversarial:
        return WarmUp(policy, loaded.policy.layout)
    reference = None
    if loaded.frozen is not None:
        module = models.frozen(loaded.frozen, parts)
        reference = Role(module, loaded.frozen.lm, None)
    elif gad.refers:
        reference = Role(policy.module, policy.lm, REFERENCE)
    return Adversarial(
        policy,
        critic,
        reference,
        layout=loaded.policy.layout,
        settings=gad,
        seed=parts.settings.args.seed,
    )


def _plan(parts: Parts, loaded: Models, critic: Role) -> Plan:
    settings = parts.settings
    critic.dress()
    rate = settings.gad.critic_learning_rate
    return Plan(
        settings=settings.gad,
        order=parts.order,
        micro=parts.batch.micro,
        eval_micro=settings.args.per_device_eval_batch_size,
        layout=loaded.policy.layout,
        schedule=parts.schedule,
        critic_schedule=replace(parts.schedule, peak=rate) if rate is not None else parts.schedule,
        names=loaded.critic.trained(),
        extras=lambda folder: (
            start.place_reference(parts.output, folder) if settings.gad.refers else None
        ),
    )
