"""What a training run is told, checked as a whole before anything heavy is imported.

Standard library only: a mistake in the file is reported in a tenth of a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote.trainer.problems import Problems, TrainError

METHODS = ("sft", "dpo", "simpo", "gad")
SUPPORTED_METHODS = ("sft",)
LATER = ("qlora",)
KEYS = (
    *("method", "model", "data", "template", "lora", "full", "deepspeed", "max_seq_length"),
    *("packing", "args", "evaluate", "loss_reduction", *LATER),
)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters: `alpha / r` scales the update."""

    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("all-linear",)
    modules_to_save: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Files to evaluate on; `every` steps and at most `max_examples`, when given."""

    files: tuple[str, ...]
    every: int | None = None
    max_examples: int | None = None


@dataclass(frozen=True)
class Settings:
    """A `train:` mapping with its defaults. `lora` is None when all weights are trained."""

    model: str
    train_files: tuple[str, ...]
    evaluation: Evaluation | None = None
    template: Path | None = None
    lora: Lora | None = None
    deepspeed: Mapping[str, Any] | None = None
    max_seq_length: int = 1024
    packing: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)


def load(path: Path) -> Settings:
    """Read a JSON file that holds a `train:` mapping. Raises TrainError with every problem."""
    return parse(_read_json(path, str(path)))


def parse(record: Any) -> Settings:
    """Check a `train:` mapping and return it. Raises TrainError with every problem found."""
    problems = Problems()
    if not isinstance(record, dict):
        raise TrainError(["train: must be a mapping"])
    problems.unknown(record, KEYS, "")
    _check_method(record, problems)
    _check_later(record, problems)
    train_files, evaluation = _data(record, problems)
    settings = Settings(
        model=problems.text(record, "model", required=True) or "",
        train_files=train_files,
        evaluation=evaluation,
        template=_template(record, problems),
        lora=_lora(record, problems),
        deepspeed=_deepspeed(record.get("deepspeed"), problems),
        max_seq_length=problems.whole(record, "max_seq_length") or 1024,
        packing=problems.flag(record, "packing"),
        args=problems.mapping(record, "args"),
    )
    problems.raise_if_any()
    return settings


def _check_method(record: Mapping[str, Any], problems: Problems) -> None:
    method = record.get("method")
    if method not in METHODS:
        problems.add(f"method: must be one of {', '.join(METHODS)}, not {method!r}")
    elif method not in SUPPORTED_METHODS:
        problems.add(f"method: {method} is not supported yet")


def _check_later(record: Mapping[str, Any], problems: Problems) -> None:
    for key in LATER:
        if record.get(key) not in (None, False):
            problems.add(f"{key}: not supported yet")
    if record.get("loss_reduction") not in (None, "tokens"):
        problems.add("loss_reduction: only tokens is supported yet")


def _data(
    record: Mapping[str, Any], problems: Problems
) -> tuple[tuple[str, ...], Evaluation | None]:
    data = record.get("data")
    if not isinstance(data, dict):
        return problems.texts(record, "data", required=True), _evaluate(record, problems)
    problems.unknown(data, ("train", "eval"), "data.")
    files = problems.texts(data, "train", "data.", required=True)
    held_out = problems.texts(data, "eval", "data.")
    if held_out and record.get("evaluate") is not None:
        problems.add("data.eval: give either data.eval or evaluate, not both")
    if held_out:
        return files, Evaluation(held_out)
    return files, _evaluate(record, problems)


def _evaluate(record: Mapping[str, Any], problems: Problems) -> Evaluation | None:
    given = problems.mapping(record, "evaluate")
    if not given:
        return None
    problems.unknown(given, ("data", "every", "max_examples"), "evaluate.")
    return Evaluation(
        files=problems.texts(given, "data", "evaluate.", required=True),
        every=problems.whole(given, "every", "evaluate."),
        max_examples=problems.whole(given, "max_examples", "evaluate."),
    )


def _template(record: Mapping[str, Any], problems: Problems) -> Path | None:
    name = problems.text(record, "template")
    if name is None:
        return None
    if not Path(name).is_file():
        problems.add(f"template: {name} is not a file")
    return Path(name)


def _lora(record: Mapping[str, Any], problems: Problems) -> Lora | None:
    given = record.get("lora")
    full = problems.flag(record, "full")
    if given in (None, False):
        if not full and record.get("qlora") in (None, False):
            problems.add("lora: say lora (a mapping, or true) or full: true")
        return None
    if full:
        problems.add("full: lora and full exclude each other")
    if given is True:
        return Lora()
    if not isinstance(given, dict):
        problems.add("lora: must be true or a mapping")
        return None
    return _adapters(given, problems)


def _adapters(given: Mapping[str, Any], problems: Problems) -> Lora:
    known = ("r", "rank", "alpha", "dropout", "target_modules", "modules_to_save")
    problems.unknown(given, known, "lora.")
    if "r" in given and "rank" in given:
        problems.add("lora.rank: r and rank are the same thing; give one")
    rank = problems.whole(given, "r" if "r" in given else "rank", "lora.")
    dropout = problems.number(given, "dropout", "lora.", default=0.0)
    if not 0 <= dropout < 1:
        problems.add("lora.dropout: must be at least 0 and less than 1")
    return Lora(
        r=rank or Lora.r,
        alpha=problems.number(given, "alpha", "lora.", default=Lora.alpha),
        dropout=dropout,
        target_modules=problems.texts(given, "target_modules", "lora.") or Lora.target_modules,
        modules_to_save=problems.texts(given, "modules_to_save", "lora."),
    )


def _deepspeed(given: Any, problems: Problems) -> Mapping[str, Any] | None:
    if given is None or isinstance(given, dict):
        return given
    if not isinstance(given, str):
        problems.add("deepspeed: must be a path or a mapping")
        return None
    try:
        config = _read_json(Path(given), f"deepspeed: {given}")
    except TrainError as error:
        problems.extend(error.problems)
        return None
    if not isinstance(config, dict):
        problems.add(f"deepspeed: {given} must hold a JSON object")
        return None
    return config


def _read_json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError([f"{what}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:
        raise TrainError([f"{what}: is not JSON: {error}"]) from error
