"""The models of GAD: two (and a frozen third) when all weights are trained, one when adapters are.

With adapters policy, reference and discriminator share one frozen base, which is what lets GAD run
on one GPU. ZeRO-3 cannot share it between two engines; there the second base is sharded, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import nn

from remote.trainer import zero
from remote.trainer.build import Parts, zero3_loading, zero_config
from remote.trainer.methods.gad import critic as discriminator
from remote.trainer.methods.gad.critic import Critic, ScoreHead
from remote.trainer.methods.gad.roles import DISCRIMINATOR, POLICY, REFERENCE, put_on
from remote.trainer.methods.gad.start import Start
from remote.trainer.model import load_policy, lora_config
from remote.trainer.policy import Policy
from remote.trainer.problems import TrainError
from remote.trainer.ranks import device, together


@dataclass(frozen=True)
class Models:
    """`frozen` is the reference where it is a model of its own, not yet in an engine."""

    policy: Policy
    critic: Critic
    frozen: Policy | None = None

    @property
    def policy_adapter(self) -> str | None:
        """What the policy has to put on, where its model has several adapters."""
        return POLICY if len(getattr(self.policy.lm, "peft_config", ())) > 1 else None

    @property
    def critic_adapter(self) -> str | None:
        return DISCRIMINATOR if self.critic.policy is self.policy else None


def load(parts: Parts, start: Start) -> Models:
    """The models with their first weights. Raises TrainError."""
    with zero3_loading(parts):
        models = together(lambda: _load(parts, start))
    if parts.settings.gad.adversarial:
        _without_dropout(models.policy)
    put_on(models.critic.policy.lm, models.critic_adapter)
    if start.critic is not None:
        path = start.critic
        together(lambda: discriminator.read(models.critic, path, key=start.key))
    return models


def stage(parts: Parts) -> int:
    """The ZeRO stage; 0 without DeepSpeed."""
    given = parts.settings.deepspeed
    return zero.stage(given) if given is not None else 0


def frozen(policy: Policy, parts: Parts) -> nn.Module:
    """A model that is only asked. ZeRO-3 shards it like the others."""
    policy.requires_grad_(False)
    if stage(parts) < 3:
        return policy.to(device()).eval()
    import deepspeed  # seconds of imports

    engine, *_ = deepspeed.initialize(
        model=policy, config=zero_config(parts), dist_init_required=False
    )
    engine.eval()  # DeepSpeed's returns nothing
    return engine


def _load(parts: Parts, start: Start) -> Models:
    settings = parts.settings
    policy = load_policy(settings, parts.config, trained=start.policy)
    head = ScoreHead(int(parts.config.hidden_size), seed=settings.args.seed)
    if settings.deepspeed is None:
        head.to(device())
    if settings.lora is None:
        return _three(parts, start, policy, head)
    if start.reference is not None:
        _add_reference(policy.lm, start)
    if stage(parts) == 3:
        return Models(policy, Critic(load_policy(settings, parts.config), head))
    policy.lm.add_adapter(DISCRIMINATOR, lora_config(settings.lora))
    return Models(policy, Critic(policy, head))


def _three(parts: Parts, start: Start, policy: Policy, head: ScoreHead) -> Models:
    body = load_policy(parts.settings, parts.config)
    _leave_out_logits(body.lm)
    third = None
    if start.reference is not None:
        third = load_policy(parts.settings, parts.config, trained=start.reference)
    return Models(policy, Critic(body, head), third)


def _add_reference(lm: PeftModel, start: Start) -> None:
    try:
        lm.load_adapter(str(start.reference), adapter_name=REFERENCE, is_trainable=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainError([f"{start.key}: {start.reference}: {error}"]) from error


def _leave_out_logits(lm: Any) -> None:
    """The head is not used; unless it is the embedding, too, it is not trained."""
    head = lm.get_output_embeddings()
    if head.weight is not lm.get_input_embeddings().weight:
        head.requires_grad_(False)


def _without_dropout(policy: Policy) -> None:
    """What an answer's probability is compared with is its probability when it was sampled."""
    for module in policy.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if getattr(module, "attention_dropout", None):
            module.attention_dropout = 0.0  # type: ignore[assignment]
