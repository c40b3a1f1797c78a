"""Which settings of the user's own files and command make a training run small."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STEPS = frozenset(
    {"max_steps", "max_train_steps", "total_training_steps", "num_steps", "max_iters"}
)
SAVES = frozenset({"save_steps", "save_freq", "checkpointing_steps", "save_interval", "save_every"})
EVERY = SAVES | {"eval_steps", "test_freq", "eval_every", "eval_interval"}
ONE = frozenset(
    {"per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"}
    | {"logging_steps", "warmup_steps", "dataloader_num_workers"}
)
SHORT = frozenset({"max_seq_length", "max_length", "max_seq_len", "max_prompt_length"})
OFF = frozenset(
    {"bf16", "fp16", "tf32", "load_in_4bit", "load_in_8bit", "use_qlora", "use_8bit_optimizer"}
    | {"use_flash_attn", "use_flash_attention", "push_to_hub", "gradient_checkpointing"}
)
MODEL = frozenset(
    {"model", "model_name", "model_name_or_path", "model_id", "base_model", "model_path"}
    | {"tokenizer", "tokenizer_name", "tokenizer_name_or_path", "pretrained_model_name_or_path"}
)
LIMIT = frozenset(
    {"save_total_limit", "keep_last_n_checkpoints", "max_checkpoints", "max_actor_ckpt_to_keep"}
)
OUTPUT = frozenset(
    {"output_dir", "default_local_dir", "save_dir", "checkpoint_dir", "ckpt_dir", "out_dir"}
)
LENGTH = 64
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
# `--name value`, `--name=value`, and `a.b.name=value` as Hydra has it.
_FLAG = re.compile(
    r"(?P<name>--[\w.-]+(?=[=\s])|\+*[\w/]+(?:\.[\w-]+)+(?==))(?P<gap>=|\s+(?!-))"
    r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\"\\;&|]+)"
)
_BILLIONS = re.compile(r"(?<![\w.])(\d{1,4}(?:\.\d{1,2})?)[bB](?![a-z])")


@dataclass(frozen=True)
class Wish:
    """How small: the step to end at, a checkpoint each `every` steps. `model` is where the
    stand-in for a model of the hub lies on the box, empty when nobody needs one."""

    steps: int
    every: int
    model: str
    short: bool = True


def leaves(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every single value of nested mappings with the keys that lead to it."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, (*above, str(key)))
    else:
        yield above, tree


def edits(tree: Any, wish: Wish) -> dict[str, Any]:
    """Dotted keys of a settings file and the values that make it small; only keys it has."""
    found = {}
    for keys, value in leaves(tree):
        small = _smaller(keys[-1].replace("-", "_") if keys else "", value, wish)
        if small is not None and small != value and not any("." in key for key in keys):
            found[".".join(keys)] = small
    return found


def shrink_command(text: str, wish: Wish) -> str:
    """The same for what stands in the command itself, as `--max_steps 500` or `a.save_freq=100`."""

    def replaced(match: re.Match[str]) -> str:
        name = match["name"].lstrip("-+").rsplit(".", 1)[-1].replace("-", "_")
        value = match["value"].strip("'\"")
        small = _smaller(name, _typed(value), wish)
        return match[0] if small is None else f"{match['name']}{match['gap']}{_text(small, value)}"

    return _FLAG.sub(replaced, text)


def settings_in(text: str) -> dict[str, Any]:
    """The settings that a command gives itself, by the last part of their names."""
    found = {}
    for match in _FLAG.finditer(text):
        name = match["name"].lstrip("-+").rsplit(".", 1)[-1].replace("-", "_")
        found[name] = _typed(match["value"].strip("'\""))
    return found


def named(tree: Any, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The dotted keys whose last part is one of `names`, and their values."""
    for keys, value in leaves(tree):
        if keys and keys[-1].replace("-", "_") in names:
            yield ".".join(keys), value


def billions(name: str) -> float | None:
    """Parameters in billions, as a model's name tells: `Qwen2.5-14B-Instruct` has 14."""
    found = _BILLIONS.search(name.replace("_", "-").replace("-", " "))
    return float(found[1]) if found else None


def is_hub_id(value: Any) -> bool:
    return isinstance(value, str) and bool(_HUB_ID.match(value))


def _smaller(name: str, value: Any, wish: Wish) -> Any:
    if name in STEPS and _is_number(value):
        return wish.steps
    if name in EVERY and _is_number(value):
        return wish.every if value > 0 else None
    if name in ONE and _is_number(value) and value > 1:
        return 1
    if name in SHORT and wish.short and _is_number(value) and value > LENGTH:
        return LENGTH
    if name in OFF and value in (True, "true", "True"):
        return False
    if name in MODEL and wish.model and is_hub_id(value):
        return wish.model
    if name == "report_to" and value not in ("none", [], None):
        return "none"
    return None


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _typed(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return text


def _text(value: Any, like: str) -> str:
    if isinstance(value, bool):
        return str(value).lower() if like.islower() else str(value)
    return str(value)
