"""What the settings of a trainer say before it runs: rows a step, an optimizer of 8 bits, and what
differs between two phases. Pure; `trees` are parsed settings files, by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from remote.trainer.args import Args

# What may change from one rung to the next without making its verdict void.
RUNG_KEYS = frozenset(
    {"gpus", "gpu", "num_gpus", "num_processes", "use_8bit_optimizer", "deepspeed", "resources"}
)
EIGHT_BIT = "use_8bit_optimizer"
MICRO = "per_device_train_batch_size"
ACCUMULATION = "gradient_accumulation_steps"
_HORIZON = frozenset({"max_steps", "max_train_steps"})
# How often something is saved, looked at or told is no part of what is learnt; the rows of a step
# are compared by themselves (M21).
_FREE = RUNG_KEYS | {MICRO, ACCUMULATION, "run_name", "stop_after_steps", "default_local_dir"}
_FREE_WORDS = re.compile(
    r"^(save|eval|evaluation|logging|log|checkpointing|report|push|keep)_"
    r"|^(out|output|ckpt|checkpoint)(_dir|_path|_folder)?$"
)
_PATH = re.compile(r"[\w./-]+")
_COMMENT = re.compile(r"(?m)^\s*#.*$")
_NO_DEEPSPEED = re.compile(r"deepspeed[\"']?\s*[:=]\s*(null|none|false|~|\"\"|'')", re.IGNORECASE)


@dataclass(frozen=True)
class Batch:
    """Rows of one optimizer step: `micro` x `accumulation` on each GPU, or `whole` on all of them
    together, however many there are."""

    micro: int = 1
    accumulation: int = 1
    whole: int | None = None

    def rows(self, gpus: int) -> int:
        return self.whole or self.micro * self.accumulation * gpus

    def accumulation_for(self, rows: int, gpus: int) -> int | None:
        """The accumulation that makes as many rows; None when none does."""
        at_once = self.micro * gpus
        return rows // at_once if self.whole is None and rows % at_once == 0 else None


def named_in(command: str, files: Collection[str]) -> tuple[str, ...]:
    """Which of the `files` (paths from the work folder) a command names."""
    words = (word.removeprefix("./") for word in _PATH.findall(command))
    return tuple(dict.fromkeys(word for word in words if word in files))


def speaks_of_deepspeed(text: str) -> bool:
    """Whether a command or a file says that DeepSpeed is used; a comment does not."""
    told = _NO_DEEPSPEED.sub("", _COMMENT.sub("", text))
    return "deepspeed" in told.lower()


def eight_bit_key(tree: Any) -> str:
    """The dotted key that turns an optimizer of 8 bits on; empty when none does."""
    found = (key for key, value in leaves(tree) if _last(key) == EIGHT_BIT and value is True)
    return next(found, "")


def batch_of(
    command: str, train: Mapping[str, Any] | None, trees: Mapping[str, Any]
) -> Batch | None:
    """None where settings and command do not say it, or say two things."""
    if train is not None:
        return _own_batch(train.get("args") or {})
    micro, accumulation = (_only(name, command, trees) for name in (MICRO, ACCUMULATION))
    return Batch(micro, accumulation) if micro and accumulation else None


def differing(before: Any, now: Any) -> tuple[str, ...]:
    """The dotted keys of what another training would come of. Another last step is one where the
    learning rate falls until it: a cosine to zero at step 500 is no beginning of a longer one."""
    one, other = dict(leaves(before)), dict(leaves(now))
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return tuple(sorted(key for key in keys if not _is_free(key, other)))


def leaves(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each value of nested mappings, by its dotted key."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, (*above, str(key)))
    else:
        yield ".".join(above), tree


def _own_batch(args: Mapping[str, Any]) -> Batch:
    whole = args.get("global_batch_size")
    micro = args.get(MICRO, Args.per_device_train_batch_size)
    return Batch(micro, args.get(ACCUMULATION, Args.gradient_accumulation_steps), whole)


def _only(name: str, command: str, trees: Mapping[str, Any]) -> int | None:
    """The one number that is told under this name; the command has the last word."""
    told = set(re.findall(rf"--{name}[=\s]+(\d+)\b", command))
    if not told:
        named = [value for key, value in leaves(trees) if _last(key) == name]
        told = {str(value) for value in named if _is_count(value)}
    return int(told.pop()) if len(told) == 1 else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_free(key: str, settings: Mapping[str, Any]) -> bool:
    name = _last(key)
    if name in _HORIZON:
        return any(_sets_horizon(_last(each), value) for each, value in settings.items())
    return name in _FREE or bool(_FREE_WORDS.match(name))


def _sets_horizon(name: str, value: Any) -> bool:
    is_constant = name == "lr_scheduler_type" and str(value).startswith("constant")
    return is_constant or (name == "schedule_steps" and _is_count(value))


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]
