"""Puts a method's learner together: model, optimizer, engine, objective."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from remote.trainer import zero
from remote.trainer.data.order import Order
from remote.trainer.data.rows import Store
from remote.trainer.engine import Engine, Plain, make_optimizer, parameter_groups
from remote.trainer.learner import Learner
from remote.trainer.methods import reference
from remote.trainer.methods.dpo import Dpo
from remote.trainer.methods.objective import Objective
from remote.trainer.methods.reference import Reference
from remote.trainer.methods.reference_pass import for_evaluation, for_training
from remote.trainer.methods.sft import Sft
from remote.trainer.methods.simpo import Simpo
from remote.trainer.methods.supervised import Feed, Supervised
from remote.trainer.model import load_policy
from remote.trainer.policy import Policy
from remote.trainer.problems import TrainError
from remote.trainer.ranks import barrier, rank, together
from remote.trainer.resume import Origin
from remote.trainer.schedule import Schedule
from remote.trainer.settings import Settings
from remote.trainer.weights import Weights

HELD_OUT = f"held_out_{reference.FILE}"


@dataclass(frozen=True)
class Parts:
    """What a learner is made of. `last`: the step after the last one; `origin`: what is resumed."""

    settings: Settings
    config: Any
    tokenizer: Any
    store: Store
    held_out: Store | None
    order: Order
    batch: zero.Batch
    schedule: Schedule
    origin: Origin | None
    last: int
    output: Path


def build(parts: Parts) -> tuple[Learner, Any]:
    """The learner, as far as `origin` had come, and its model. Raises TrainError."""
    if parts.settings.method == "gad":
        from remote.trainer.methods import gad  # only its own runs need it

        return gad.build(parts)
    with zero3_loading(parts):
        policy = together(
            lambda: load_policy(parts.settings, parts.config, trained=_trained(parts))
        )
    engine = make_engine(policy, parts)
    feed = Feed(parts.store, parts.order, parts.batch.micro, policy.layout)
    learner = _supervised(parts, policy, engine, feed)
    if parts.origin is not None:
        learner.load(parts.origin.folder, parts.origin.step)
    return learner, policy.lm


def make_engine(module: nn.Module, parts: Parts) -> Engine:
    """The engine that the settings ask for, over what is trained of `module`."""
    settings = parts.settings
    groups = parameter_groups(module, settings.args.weight_decay)
    optimizer = make_optimizer(groups, settings.args, rate=settings.learning_rate)
    if settings.deepspeed is None:
        return Plain(module, optimizer, max_grad_norm=settings.args.max_grad_norm)
    from remote.trainer.engine_deepspeed import DeepSpeed  # seconds of imports

    return DeepSpeed(
        module, optimizer, config=zero_config(parts), workplace=parts.output / ".universal"
    )


def zero_config(parts: Parts) -> dict[str, Any]:
    """DeepSpeed's configuration, whole. Raises TrainError for what is left to guess."""
    assert parts.settings.deepspeed is not None
    config = zero.resolved(
        parts.settings.deepspeed,
        parts.settings.args,
        parts.batch,
        hidden_size=int(parts.config.hidden_size),
    )
    left = list(zero.leftover_autos(config))
    if left:
        raise TrainError([f"{name}: auto cannot be filled in here; say a value" for name in left])
    return config


def zero3_loading(parts: Parts) -> Any:
    """While it lives, transformers shards each weight over the ranks as it is read."""
    return _Zero3(parts)


class _Zero3:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._held: Any = None

    def __enter__(self) -> None:
        given = self._parts.settings.deepspeed
        if given is not None and zero.stage(given) == 3:
            from transformers.integrations import HfDeepSpeedConfig  # imports DeepSpeed

            self._held = HfDeepSpeedConfig(zero_config(self._parts))

    def __exit__(self, *_: object) -> None:
        self._held = None


def _trained(parts: Parts) -> Path | None:
    """DeepSpeed brings its weights back itself, from its shards."""
    if parts.origin is None or parts.settings.deepspeed is not None:
        return None
    return parts.origin.folder


def _supervised(parts: Parts, policy: Policy, engine: Engine, feed: Feed) -> Supervised:
    objective, held_out = _objectives(parts, policy, engine, feed)
    return Supervised(
        engine,
        Weights(policy.lm, parts.tokenizer),
        objective=objective,
        feed=feed,
        schedule=parts.schedule,
        eval_micro=parts.settings.args.per_device_eval_batch_size,
        eval_objective=held_out,
        extras=lambda folder: _place_references(parts, folder),
    )


def _objectives(
    parts: Parts, policy: Policy, engine: Engine, feed: Feed
) -> tuple[Objective, Objective | None]:
    settings = parts.settings
    if settings.method == "sft":
        return Sft(settings.loss_reduction), None
    if settings.method == "simpo":
        return Simpo(settings.simpo), None
    training, held_out = _references(parts, policy, engine, feed)
    return Dpo(settings.dpo, training), Dpo(settings.dpo, held_out) if held_out else None


def _references(
    parts: Parts, policy: Policy, engine: Engine, feed: Feed
) -> tuple[Reference, Reference | None]:
    """Computed now from the first weights, or brought along by the checkpoint."""
    stores = {reference.FILE: parts.store}
    if parts.held_out is not None:
        stores[HELD_OUT] = parts.held_out
    if parts.origin is not None:
        folder = parts.origin.folder
        found = together(
            lambda: {
                name: reference.load(folder / name, fingerprint=_fingerprint(parts, store))
                for name, store in stores.items()
            }
        )
        together(lambda: _check_known(parts, found[reference.FILE]))
    else:
        found = _computed(parts, policy, engine, feed)
    if rank() == 0:
        for name, each in found.items():
            each.save(parts.output / "reference" / name)
    barrier()
    return found[reference.FILE], found.get(HELD_OUT)


def _computed(parts: Parts, policy: Policy, engine: Engine, feed: Feed) -> dict[str, Reference]:
    found = {
        reference.FILE: for_training(
            engine.module,
            feed,
            steps=parts.last,
            fingerprint=_fingerprint(parts, parts.store),
            lm=policy.lm,
        )
    }
    if parts.held_out is not None:
        found[HELD_OUT] = for_evaluation(
            engine.module,
            parts.held_out,
            feed,
            micro=parts.settings.args.per_device_eval_batch_size,
            fingerprint=_fingerprint(parts, parts.held_out),
            lm=policy.lm,
        )
    return found


def _check_known(parts: Parts, known: Reference) -> None:
    assert parts.origin is not None
    if not np.isnan(known.values).any():
        return
    for number in range(parts.origin.step, parts.last):
        rows = [row for item in parts.order.step(number).items for row in item]
        if not known.knows(rows):
            raise TrainError(
                [
                    f"args.max_steps: the checkpoint brings the reference of the steps up to"
                    f" {number} only, as many as it was started with; ask for no more, or start"
                    " again"
                ]
            )


def _place_references(parts: Parts, folder: Path) -> None:
    if parts.settings.method != "dpo":
        return
    for path in sorted((parts.output / "reference").glob(f"*{reference.FILE}")):
        reference.place(path, folder, name=path.name)


def _fingerprint(parts: Parts, store: Store) -> str:
    return f"{parts.settings.model} {store.fingerprint}"
