"""`args`: the fields of transformers' TrainingArguments that this trainer honours, and no others.

A name that would be ignored is refused: a learning rate that nobody reads costs a night.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

from remote.trainer.problems import Problems, did_you_mean, is_finite

# Each schedule, and which of lr_scheduler_kwargs it reads.
SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_min_lr": ("min_lr", "min_lr_rate", "num_cycles"),
    "polynomial": ("power", "lr_end"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": ("timescale",),
}
OPTIMIZERS = (
    *("adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"),
)
EIGHT_BIT = ("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit")
REPORTERS = ("tensorboard", "wandb")
STRATEGIES = ("no", "steps", "epoch")
SCHEDULE_OPTIONS = tuple(dict.fromkeys(chain.from_iterable(SCHEDULES.values())))

# Said elsewhere, or not what this trainer does; the reason is what the user is told.
REFUSED = {
    "deepspeed": "say it as deepspeed",
    "fsdp": "not supported; deepspeed with ZeRO 3 shards the same",
    "max_length": "say it as max_seq_length",
    "max_seq_length": "say it as max_seq_length, beside args",
    "packing": "say it as packing, beside args",
    "chat_template_path": "say it as template",
    "eval_steps": "say it as evaluate.every",
    "eval_strategy": "say it as evaluate.every",
    "resume_from_checkpoint": "the option --resume says it, or GPUJOB_RESUME_FROM",
    "load_best_model_at_end": "not supported; the mirror keeps the best (checkpoints.keep)",
    "push_to_hub": "not supported; the weights are mirrored, push them from there",
    "group_by_length": "not needed: nothing is padded",
    "padding_free": "not needed: nothing is padded",
    "auto_find_batch_size": "not supported: the batch would no longer be the one you asked for",
    "torch_compile": "not supported yet",
    "label_smoothing_factor": "not supported",
    "neftune_noise_alpha": "not supported",
}
# Harmless where they come from a Hugging Face script: they ask for what is so anyway.
NO_EFFECT = (
    *("do_train", "do_eval", "disable_tqdm", "overwrite_output_dir", "remove_unused_columns"),
    *("logging_strategy", "logging_first_step", "logging_nan_inf_filter", "save_safetensors"),
    *("dataloader_num_workers", "dataloader_pin_memory", "ddp_find_unused_parameters"),
    *("gradient_checkpointing_kwargs", "assistant_only_loss", "dataloader_drop_last"),
)


@dataclass(frozen=True)
class Args:
    """Hugging Face's names and meanings, with these additions.

    `global_batch_size`: sequences a step, held at any number of ranks (accumulation follows).
    `schedule_steps`: the steps over which the learning rate falls, when not `max_steps`, so that
    a short trial is a true beginning of the long run. `learning_rate` None is the method's own.
    """

    output_dir: str | None = None
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    global_batch_size: int | None = None
    max_steps: int = -1
    num_train_epochs: float = 3.0
    learning_rate: float | None = None
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: Mapping[str, float] = field(default_factory=dict)
    schedule_steps: int | None = None
    warmup_steps: float = 0
    warmup_ratio: float = 0.0
    optim: str = "adamw_torch_fused"
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    seed: int = 42
    data_seed: int | None = None
    bf16: bool = False
    fp16: bool = False
    tf32: bool | None = None
    full_determinism: bool = False
    gradient_checkpointing: bool = False
    use_liger_kernel: bool | None = None
    attn_implementation: str | None = None
    use_cpu: bool = False
    logging_steps: int = 1
    save_strategy: str = "steps"
    save_steps: int = 500
    save_total_limit: int | None = None
    report_to: tuple[str, ...] = ()
    run_name: str | None = None
    ddp_timeout: int = 1800


_CHOICES = {
    "lr_scheduler_type": tuple(SCHEDULES),
    "optim": OPTIMIZERS,
    "save_strategy": STRATEGIES,
}
_AT_LEAST_1 = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "save_total_limit"),
    *("gradient_accumulation_steps", "global_batch_size", "schedule_steps", "save_steps"),
    *("logging_steps", "ddp_timeout"),
)
_NOT_NEGATIVE = (
    *("learning_rate", "weight_decay", "warmup_steps", "adam_epsilon", "max_grad_norm", "seed"),
    *("data_seed", "adam_beta1", "adam_beta2", "warmup_ratio"),
)
_FRACTIONS = ("adam_beta1", "adam_beta2", "warmup_ratio")


def parse(given: Mapping[str, Any], problems: Problems) -> Args:
    """Read `args`; note every problem and go on with the default of what is wrong."""
    known = {each.name: str(each.type) for each in fields(Args)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in known:
            _read(key, value, known[key], values, problems)
        elif key in REFUSED:
            if value not in (None, False, "no", ""):
                problems.add(f"args.{key}: {REFUSED[key]}")
        elif key not in NO_EFFECT:
            names = (*known, *REFUSED, *NO_EFFECT)
            problems.add(f"args.{key}: unknown argument{did_you_mean(str(key), names)}")
    args = Args(**values)
    _check_together(given, values, problems)
    if values.get("lr_scheduler_type") == given.get("lr_scheduler_type"):  # it is a good one
        _check_schedule(args, problems)
    return args


def _read(key: str, value: Any, kind: str, values: dict[str, Any], problems: Problems) -> None:
    if value is None and "None" in kind:
        return
    if key == "report_to":
        values[key] = _reporters(value, problems)
    elif key == "lr_scheduler_kwargs":
        values[key] = _schedule_options(value, problems)
    elif (problem := _wrong(key, value, kind)) is not None:
        problems.add(f"args.{key}: {problem}")
    else:
        values[key] = value


def _wrong(key: str, value: Any, kind: str) -> str | None:
    if "bool" in kind:
        return None if isinstance(value, bool) else "must be true or false"
    if kind.startswith("str"):
        return _wrong_text(key, value)
    whole = kind.startswith("int")
    number = isinstance(value, int) if whole else isinstance(value, int | float)
    if not number or isinstance(value, bool):
        return "must be a whole number" if whole else _not_a_number(value)
    if not whole and not is_finite(value):
        return "must be a finite number"
    if key in _AT_LEAST_1 and value < 1:
        return "must be at least 1"
    if key in _NOT_NEGATIVE and value < 0:
        return "must not be negative"
    if key in _FRACTIONS and value > 1:
        return "must be at most 1"
    return None


def _wrong_text(key: str, value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return "must be a text"
    choices = _CHOICES.get(key)
    if choices is None or value in choices:
        return None
    return f"must be one of {', '.join(choices)}, not {value!r}{did_you_mean(value, choices)}"


def _not_a_number(value: Any) -> str:
    # YAML 1.1 reads 1e-5 as a text; people who paste from such a file deserve the reason.
    return f"must be a number{', not a text' if isinstance(value, str) else ''}"


def _reporters(value: Any, problems: Problems) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if names in (["none"], None, []):
        return ()
    if not isinstance(names, list | tuple) or any(name not in REPORTERS for name in names):
        problems.add(f"args.report_to: must be none or of {', '.join(REPORTERS)}")
        return ()
    return tuple(names)


def _schedule_options(value: Any, problems: Problems) -> dict[str, float]:
    if not isinstance(value, dict):
        problems.add("args.lr_scheduler_kwargs: must be a mapping")
        return {}
    problems.unknown(value, SCHEDULE_OPTIONS, "args.lr_scheduler_kwargs.")
    names = [name for name in SCHEDULE_OPTIONS if name in value]
    prefix = "args.lr_scheduler_kwargs."
    return {name: problems.number(value, name, prefix, default=0.0) for name in names}


def _check_together(
    given: Mapping[str, Any], values: Mapping[str, Any], problems: Problems
) -> None:
    if values.get("bf16") and values.get("fp16"):
        problems.add("args.fp16: bf16 and fp16 exclude each other")
    if values.get("max_steps", -1) == 0 or values.get("max_steps", -1) < -1:
        problems.add("args.max_steps: must be at least 1, or -1 for num_train_epochs")
    if values.get("num_train_epochs", 1) <= 0:
        problems.add("args.num_train_epochs: must be more than 0")
    if "global_batch_size" in values and "gradient_accumulation_steps" in given:
        problems.add(
            "args.gradient_accumulation_steps: follows from global_batch_size; give only one"
        )
    if values.get("warmup_ratio") and values.get("warmup_steps"):
        problems.add("args.warmup_ratio: warmup_steps says it already; give only one")


def _check_schedule(args: Args, problems: Problems) -> None:
    name, options = args.lr_scheduler_type, args.lr_scheduler_kwargs
    for option in options:
        if option not in SCHEDULES[name]:
            others = " and ".join(other for other, read in SCHEDULES.items() if option in read)
            problems.add(f"args.lr_scheduler_kwargs.{option}: is for {others}, not for {name}")
    if name == "cosine_with_min_lr" and len({"min_lr", "min_lr_rate"} & options.keys()) != 1:
        problems.add(
            "args.lr_scheduler_kwargs: cosine_with_min_lr needs one of min_lr and min_lr_rate"
        )
    for key in ("warmup_steps", "warmup_ratio"):
        if name == "constant" and getattr(args, key):
            problems.add(f"args.{key}: constant does not warm up; constant_with_warmup does")
