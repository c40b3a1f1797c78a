"""DeepSpeed's configuration: what is refused in it, and what is filled in.

Standard library only, so that a trap in the file is told before anything heavy is imported.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from remote.trainer.args import Args
from remote.trainer.problems import TrainError

AUTO = "auto"
ACCUMULATION = "gradient_accumulation_steps"
# DeepSpeed's name of an optimizer's parameter → ours.
_ADAM = {"lr": "learning_rate", "eps": "adam_epsilon", "weight_decay": "weight_decay"}
_ADAMS = ("adam", "adamw")
# What is read of the configuration here, all mappings.
_PARTS = ("optimizer", "zero_optimization", "checkpoint", "bf16", "fp16")
# What would be ignored here, or change the training behind the loop's back.
_REFUSED = {
    "amp": "not supported; say args.bf16 or args.fp16",
    "curriculum_learning": "not supported; the data's order is this trainer's",
    "data_efficiency": "not supported; the data's order is this trainer's",
    "tensor_parallel": "not supported; ZeRO 3 shards weights",
    "nebula": "writes checkpoints later; not supported",
    "datastates_ckpt": "writes checkpoints later; not supported",
}


@dataclass(frozen=True)
class Batch:
    """The arithmetic that DeepSpeed checks: micro x accumulation x ranks."""

    micro: int
    accumulation: int
    ranks: int


def stage(config: Mapping[str, Any]) -> int:
    """The ZeRO stage, 0 to 3."""
    return int(_part(config, "zero_optimization").get("stage", 0))


def casts(config: Mapping[str, Any], args: Args) -> bool:
    """Whether DeepSpeed keeps the weights in half precision and a master copy of them.

    At stage 0 in bfloat16 it would keep no copy, and lose every update that is small against its
    weight: there weights stay in float32, and forwards run under autocast, as without DeepSpeed.
    """
    return args.fp16 or (args.bf16 and stage(config) > 0)


def problems(config: Mapping[str, Any], args: Args) -> Iterator[str]:
    """What would silently train otherwise than `args` says, or save later than it seems."""
    wrong = [key for key in _PARTS if not isinstance(config.get(key) or {}, Mapping)]
    if wrong:
        yield from (f"deepspeed.{key}: must be a mapping" for key in wrong)
        return
    yield from _optimizer_problems(_part(config, "optimizer"), args)
    if config.get("scheduler"):
        yield (
            "deepspeed.scheduler: would override args.lr_scheduler_type; take it out of the file"
            " and say args.lr_scheduler_type and args.warmup_steps"
        )
    yield from _refused(config)
    yield from _batch_problems(config, args)
    for key, ours in (("bf16", args.bf16), ("fp16", args.fp16)):
        enabled = _part(config, key).get("enabled", AUTO)
        if enabled != AUTO and bool(enabled) != ours:
            yield f"deepspeed.{key}.enabled: is {enabled} and args.{key} is {ours}; say one thing"
    yield from _differing(config, "gradient_clipping", args, "max_grad_norm")
    if _part(config, "zero_optimization").get("stage", 0) not in (0, 1, 2, 3):
        yield "deepspeed.zero_optimization.stage: must be 0 to 3"


def check_total(config: Mapping[str, Any], batch: Batch) -> None:
    """Raises TrainError for a file that asks for another number of sequences a step."""
    asked = config.get("train_batch_size", AUTO)
    total = batch.micro * batch.accumulation * batch.ranks
    if asked not in (AUTO, None, total):
        raise TrainError(
            [
                f"deepspeed.train_batch_size: is {asked}; {batch.ranks} ranks x {batch.micro}"
                f" sequences x {batch.accumulation} accumulation are {total}; say"
                " args.global_batch_size, and auto here"
            ]
        )


def resolved(
    config: Mapping[str, Any], args: Args, batch: Batch, *, hidden_size: int
) -> dict[str, Any]:
    """The configuration with every `auto` filled in, and the optimizer left to us."""
    done = copy.deepcopy(dict(config))
    done.pop("optimizer", None)
    done.update(
        train_micro_batch_size_per_gpu=batch.micro,
        gradient_accumulation_steps=batch.accumulation,
        train_batch_size=batch.micro * batch.accumulation * batch.ranks,
        gradient_clipping=args.max_grad_norm,
        bf16={**(done.get("bf16") or {}), "enabled": args.bf16 and casts(config, args)},
        fp16={**(done.get("fp16") or {}), "enabled": args.fp16},
        zero_allow_untested_optimizer=True,
        # torch's fused AdamW runs on the CPU too; DeepSpeed's own needs a compiler.
        zero_force_ds_cpu_optimizer=False,
        steps_per_print=2**31,
    )
    _fill_zero3(done.get("zero_optimization") or {}, hidden_size)
    return done


def leftover_autos(config: Mapping[str, Any], prefix: str = "deepspeed") -> Iterator[str]:
    """The names of values that are still `auto`."""
    for key, value in config.items():
        if value == AUTO:
            yield f"{prefix}.{key}"
        elif isinstance(value, Mapping):
            yield from leftover_autos(value, f"{prefix}.{key}")


def _part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = config.get(key) or {}
    return part if isinstance(part, Mapping) else {}


def _refused(config: Mapping[str, Any]) -> Iterator[str]:
    for key, reason in _REFUSED.items():
        value = config.get(key)
        off = isinstance(value, Mapping) and value.get("enabled") is False
        if value not in (None, False) and not off:
            yield f"deepspeed.{key}: {reason}"
    checkpoint = _part(config, "checkpoint")
    if checkpoint.get("writer"):
        yield "deepspeed.checkpoint.writer: writes later; not supported"
    if checkpoint.get("load_universal"):
        yield (
            "deepspeed.checkpoint.load_universal: not supported; a resume converts what it has to"
        )


def _batch_problems(config: Mapping[str, Any], args: Args) -> Iterator[str]:
    yield from _differing(
        config, "train_micro_batch_size_per_gpu", args, "per_device_train_batch_size"
    )
    if args.global_batch_size is None:
        yield from _differing(config, ACCUMULATION, args, ACCUMULATION)
        return
    yield from _differing(config, "train_batch_size", args, "global_batch_size")
    if config.get(ACCUMULATION) not in (AUTO, None):
        yield (
            f"deepspeed.{ACCUMULATION}: is {config[ACCUMULATION]}; args.global_batch_size says it;"
            " take it out of the file"
        )


def _differing(config: Mapping[str, Any], key: str, args: Args, name: str) -> Iterator[str]:
    value, ours = config.get(key, AUTO), getattr(args, name)
    if value not in (AUTO, None, ours):
        yield f"deepspeed.{key}: is {value}; args.{name} is {ours}; say one thing"


def _optimizer_problems(optimizer: Mapping[str, Any], args: Args) -> Iterator[str]:
    kind = str(optimizer.get("type", "AdamW"))
    if kind.lower() not in _ADAMS:
        yield (
            f"deepspeed.optimizer: {kind} would replace the optimizer of args.optim; take it out"
        )
    for key, value in _part(optimizer, "params").items():
        ours = [args.adam_beta1, args.adam_beta2] if key == "betas" else None
        name = "adam_beta1 and adam_beta2" if key == "betas" else _ADAM.get(key)
        if value == AUTO or name is None:
            continue
        if ours is None:
            ours = getattr(args, name)
        if value != ours:
            yield (
                f"deepspeed.optimizer.params.{key}: is {value}, args says {ours}; set args.{name}"
                " and take the optimizer out of the file"
            )


def _fill_zero3(zero: dict[str, Any], hidden_size: int) -> None:
    values = {
        "reduce_bucket_size": hidden_size * hidden_size,
        "stage3_prefetch_bucket_size": int(0.9 * hidden_size * hidden_size),
        "stage3_param_persistence_threshold": 10 * hidden_size,
    }
    for key, value in values.items():
        if zero.get(key) == AUTO:
            zero[key] = value
