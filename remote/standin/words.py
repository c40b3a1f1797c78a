"""A command line and the settings files that it names, read as the user's trainer would."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Iterator, Sequence

# Names that trainers give to one thing; of several in one command the last one counts.
OUTPUT = ("output_dir", "default_local_dir", "save_dir", "checkpoint_dir", "ckpt_dir", "out_dir")
STEPS = ("max_steps", "max_train_steps", "total_training_steps", "num_steps", "max_iters")
EVERY = ("save_steps", "save_freq", "checkpointing_steps", "save_interval", "save_every")
LIMIT = ("save_total_limit", "keep_last_n_checkpoints", "max_checkpoints", "max_actor_ckpt_to_keep")
RESUME = ("resume_from_checkpoint", "resume_from_path", "resume_from", "resume", "load_checkpoint")
_FILE = re.compile(r"\.(json|ya?ml|py|sh|jsonl|parquet|csv|txt)$")
_SETTINGS = (".json", ".yaml", ".yml")
_WRITTEN = re.compile(r"out|save|log|result|report|metrics", re.IGNORECASE)
_YAML_LINE = re.compile(r"^\s*-?\s*([A-Za-z_][\w.-]*)\s*:\s*(\S.*?)\s*(?:#.*)?$")


def pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--name value`, `--name=value` and `a.b.name=value`; a word of its own has an empty name."""
    name = ""
    for word in words:
        key, equals, value = word.partition("=")
        if equals and re.fullmatch(r"[-+]*[A-Za-z_][\w./-]*", key):
            yield key.lstrip("-+"), value
            name = ""
        elif word.startswith("--"):
            name = word[2:]
            yield name, ""
        else:
            yield name, word
            name = ""


def read(words: Sequence[str]) -> dict[str, Any]:
    """Every setting by the last part of its name: those of files first, then the command's own."""
    found: dict[str, Any] = {}
    for _, value in pairs(words):
        if value.endswith(_SETTINGS) and Path(value).is_file():
            found.update(settings_of(Path(value)))
    for name, value in pairs(words):
        if name and value:
            found[_last(name)] = value
    return found


def settings_of(path: Path) -> dict[str, Any]:
    """Of YAML, the lines `name: value` are enough: nothing here needs more of it."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".json":
        try:
            return dict(_leaves(json.loads(text)))
        except ValueError:
            return {}
    found = (_YAML_LINE.match(line) for line in text.splitlines())
    return {_last(match[1]): match[2].strip("'\"") for match in found if match}


def missing_file(words: Sequence[str]) -> str | None:
    """The first file that the command reads and that is not there. A bare name may be one of the
    program's own, which it finds where it lies itself."""
    for name, value in pairs(words):
        is_bare = "/" not in value and not value.endswith((".py", ".sh"))
        is_read = _FILE.search(value) and not _WRITTEN.search(name) and "*" not in value
        is_read = is_read and not (is_bare and name)
        if is_read and ":" not in value and not Path(value).exists():
            return value
    return None


def first(settings: dict[str, Any], names: Sequence[str]) -> Any:
    return next((settings[name] for name in names if settings.get(name) not in (None, "")), None)


def whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield _last(str(key)), value


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1].replace("-", "_")
