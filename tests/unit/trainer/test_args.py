"""`args`: names of transformers that are honoured, and the word for each that is not."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from remote.trainer.args import NO_EFFECT, Args, parse
from remote.trainer.problems import Problems, TrainError


def _parse(given: dict[str, Any]) -> Args:
    problems = Problems()
    args = parse(given, problems)
    problems.raise_if_any()
    return args


def test_reads_the_names_of_transformers() -> None:
    args = _parse(
        {
            "max_steps": 3,
            "learning_rate": 1e-5,
            "report_to": "none",
            "warmup_steps": 0.1,
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr": 1e-6},
            "save_total_limit": None,
            "disable_tqdm": True,
            "push_to_hub": False,
        }
    )
    assert (args.max_steps, args.learning_rate, args.report_to) == (3, 1e-5, ())
    assert (args.warmup_steps, args.lr_scheduler_kwargs) == (0.1, {"min_lr": 1e-6})
    assert args.save_total_limit is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"max_step": 3}, "args.max_step: unknown argument; did you mean max_steps?"),
        ({"packing": True}, "args.packing: say it as packing, beside args"),
        ({"max_length": 3}, "args.max_length: say it as max_seq_length"),
        ({"eval_steps": 3}, "args.eval_steps: say it as evaluate.every"),
        ({"push_to_hub": True}, "args.push_to_hub: not supported"),
        ({"save_strategy": "sometimes"}, "args.save_strategy: must be one of no, steps, epoch"),
        ({"lr_scheduler_type": "cosin"}, "args.lr_scheduler_type: must be one of linear"),
        ({"learning_rate": "1e-5"}, "args.learning_rate: must be a number, not a text"),
        ({"learning_rate": -1}, "args.learning_rate: must not be negative"),
        ({"per_device_train_batch_size": 0}, "args.per_device_train_batch_size: must be at least"),
        (
            {"per_device_train_batch_size": True},
            "args.per_device_train_batch_size: must be a whole",
        ),
        ({"bf16": 1}, "args.bf16: must be true or false"),
        ({"bf16": True, "fp16": True}, "args.fp16: bf16 and fp16 exclude each other"),
        ({"max_steps": 0}, "args.max_steps: must be at least 1, or -1"),
        ({"num_train_epochs": 0}, "args.num_train_epochs: must be more than 0"),
        ({"report_to": ["comet"]}, "args.report_to: must be none or of tensorboard, wandb"),
        ({"lr_scheduler_kwargs": {"minlr": 1}}, "args.lr_scheduler_kwargs.minlr: unknown key"),
        ({"adam_beta2": 1.5}, "args.adam_beta2: must be at most 1"),
        (
            {"global_batch_size": 8, "gradient_accumulation_steps": 2},
            "args.gradient_accumulation_steps: follows from global_batch_size",
        ),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, "args.warmup_ratio: warmup_steps says it"),
        ({"learning_rate": math.nan}, "args.learning_rate: must be a finite number"),
        ({"learning_rate": math.inf}, "args.learning_rate: must be a finite number"),
        ({"weight_decay": 10**400}, "args.weight_decay: must be a finite number"),
        (
            {"lr_scheduler_kwargs": {"num_cycles": math.nan}, "lr_scheduler_type": "cosine"},
            "args.lr_scheduler_kwargs.num_cycles: must be a finite number",
        ),
        (
            {"lr_scheduler_kwargs": {"min_lr": 1e-6}, "lr_scheduler_type": "cosine"},
            "args.lr_scheduler_kwargs.min_lr: is for cosine_with_min_lr, not for cosine",
        ),
        (
            {"lr_scheduler_kwargs": {"power": 2}},
            "args.lr_scheduler_kwargs.power: is for polynomial, not for linear",
        ),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "args.lr_scheduler_kwargs: cosine_with_min_lr needs one of min_lr and min_lr_rate",
        ),
        (
            {
                "lr_scheduler_kwargs": {"min_lr": 1e-6, "min_lr_rate": 0.1},
                "lr_scheduler_type": "cosine_with_min_lr",
            },
            "args.lr_scheduler_kwargs: cosine_with_min_lr needs one of min_lr and min_lr_rate",
        ),
        (
            {"lr_scheduler_type": "constant", "warmup_steps": 5},
            "args.warmup_steps: constant does not warm up; constant_with_warmup does",
        ),
        (
            {"lr_scheduler_type": "constant", "warmup_ratio": 0.1},
            "args.warmup_ratio: constant does not warm up; constant_with_warmup does",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_names_the_argument(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(TrainError) as caught:
        _parse(given)
    (said,) = caught.value.problems
    assert said.startswith(problem)


def test_what_transformers_does_not_know_is_ours_on_purpose() -> None:
    arguments = pytest.importorskip("transformers").TrainingArguments
    theirs = {each.name for each in fields(arguments)}
    ours = {each.name for each in fields(Args)}
    assert (
        ours - theirs
        == {
            *("global_batch_size", "schedule_steps", "attn_implementation", "tf32"),
            *("warmup_ratio",),
        }
        - theirs
    )
    extra = {"assistant_only_loss", "overwrite_output_dir", "save_safetensors"}
    assert set(NO_EFFECT) - theirs <= extra
