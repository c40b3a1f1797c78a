"""Which family of trainers wrote something, and which one a command starts: by names alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

# In the order in which they are tried: the sign of a family, below a folder that it names.
_SIGNS = (
    ("open-instruct", re.compile(r"^(?P<root>.*?)/?(?:step|epoch)_\d+/COMPLETED$")),
    ("verl", re.compile(r"^(?P<root>.*?)/?global_step_\d+/(?:actor|critic)/")),
    ("huggingface", re.compile(r"^(?P<root>.*?)/?checkpoint-\d+/trainer_state\.json$")),
    ("deepspeed", re.compile(r"^(?P<root>.*?)/?global_step\d+/.*_states\.pt$")),
    ("accelerate", re.compile(r"^(?P<root>.*?)/?checkpoint_\d+/random_states_\d+\.pkl$")),
    ("torchtune", re.compile(r"^(?P<root>.*?)/?recipe_state/recipe_state\.pt$")),
    ("dcp", re.compile(r"^(?P<root>.*?)/?step-\d+/(?:\.metadata|__\d+_\d+\.distcp)$")),
    ("torchllms", re.compile(r"^(?P<root>.*?)/?model_(?:\d{7}|final)\.pth$")),
    ("nanochat", re.compile(r"^(?P<root>.*?)/?meta_\d{6}\.json$")),
    ("lightning", re.compile(r"^(?P<root>.*?)/?[^/]*\.ckpt$")),
)
TRAINS = re.compile(r"train|tune|sft|dpo|simpo|ppo|grpo|gad", re.IGNORECASE)
_COMMANDS = (
    ("verl", re.compile(r"\bverl[./]|main_ppo|\bgad\b")),
    ("open-instruct", re.compile(r"open_instruct|dpo_tune_cache")),
    ("torchllms", re.compile(r"\btorchllms\b")),
    ("nanochat", re.compile(r"\bnanochat\b|base_train|chat_sft")),
    ("torchtune", re.compile(r"\btune run\b|torchtune")),
    ("dcp", re.compile(r"torchtitan")),
)


def written(paths: Iterable[str]) -> tuple[str, str] | None:
    """The layout that files below the work folder look like, and the folder that holds them."""
    found: Counter[tuple[str, str]] = Counter()
    for path in paths:
        for name, sign in _SIGNS:
            match = sign.match(path)
            if match:
                found[name, match["root"]] += 1
                break
    return max(found, key=lambda each: found[each]) if found else None


def started_by(command: str) -> str:
    """The layout that this command's trainer writes, where its name tells; else empty."""
    return next((name for name, sign in _COMMANDS if sign.search(command)), "")


def expected(command: str, layout: object) -> str:
    """What this command is taken to write: by its trainer's name, else by what the job says."""
    said = layout if isinstance(layout, str) and layout != "auto" else ""
    return started_by(command) or said or "huggingface"


def fits(layout: object, found: str) -> bool:
    """Whether what was found is what `checkpoints.layout` says; of one's own nobody knows."""
    return layout in ("auto", found)


def same_folder(one: str, other: str) -> bool:
    return PurePosixPath(one or ".") == PurePosixPath(other or ".")
