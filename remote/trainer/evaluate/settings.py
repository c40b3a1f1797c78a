"""What an evaluation is told, checked as a whole before anything heavy is imported.

Standard library only, as `remote.trainer.settings`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote.trainer.problems import Problems, TrainError

COLUMNS = ("study", "condition", "task", "response", "prompt", "low", "high")
_KEYS = ("model", "checkpoint", "baseline", "template", "output", "max_seq_length", "batch_size")
_TASKS = ("loss", "generate", "socrates")


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Temperature 0 is the likeliest token each time."""

    max_new_tokens: int
    temperature: float
    top_p: float


@dataclass(frozen=True)
class Loss:
    files: tuple[str, ...]
    max_examples: int | None


@dataclass(frozen=True)
class Generate:
    files: tuple[str, ...]
    max_examples: int | None
    sampling: Sampling


@dataclass(frozen=True)
class Socrates:
    """`columns`: other names than the data set's own; `improvement`: the share of the baseline's
    distance that has to go."""

    files: tuple[str, ...]
    max_examples: int | None
    sampling: Sampling
    columns: Mapping[str, str] = field(default_factory=dict)
    resamples: int = 1000
    improvement: float = 0.05


@dataclass(frozen=True)
class Evaluation:
    """`baseline`: true evaluates `model` too, a folder is an earlier result of it."""

    model: str
    output: Path
    checkpoint: Path | None = None
    baseline: bool | Path = False
    template: Path | None = None
    max_seq_length: int = 2048
    batch_size: int = 8
    bf16: bool = False
    seed: int = 42
    loss: Loss | None = None
    generate: Generate | None = None
    socrates: Socrates | None = None


def load(path: Path) -> Evaluation:
    """Read a JSON file. Raises TrainError with every problem."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError([f"{path}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:
        raise TrainError([f"{path}: is not JSON: {error}"]) from error
    return parse(record)


def parse(record: Any) -> Evaluation:
    """Check a mapping and return it. Raises TrainError with every problem found."""
    problems = Problems()
    if not isinstance(record, dict):
        raise TrainError(["evaluation: must be a mapping"])
    problems.unknown(record, (*_KEYS, "bf16", "seed", *_TASKS), "")
    output = problems.text(record, "output", required=True)
    settings = Evaluation(
        model=problems.text(record, "model", required=True) or "",
        output=Path(output or "."),
        checkpoint=_folder(record, "checkpoint", problems),
        baseline=_baseline(record, problems),
        template=_template(record, problems),
        max_seq_length=problems.whole(record, "max_seq_length") or Evaluation.max_seq_length,
        batch_size=problems.whole(record, "batch_size") or Evaluation.batch_size,
        bf16=problems.flag(record, "bf16"),
        seed=_seed(record, problems),
        loss=_loss(record, problems),
        generate=_generate(record, problems),
        socrates=_socrates(record, problems),
    )
    if settings.baseline and settings.checkpoint is None:
        problems.add("baseline: needs a checkpoint to compare with; leave it out")
    if not any(record.get(task) for task in _TASKS):
        problems.add(f"evaluation: says nothing to do; give {', '.join(_TASKS)} or several")
    problems.raise_if_any()
    return settings


def _loss(record: Mapping[str, Any], problems: Problems) -> Loss | None:
    given = problems.mapping(record, "loss")
    if not given:
        return None
    problems.unknown(given, ("data", "max_examples"), "loss.")
    return Loss(*_files(given, "loss.", problems))


def _generate(record: Mapping[str, Any], problems: Problems) -> Generate | None:
    given = problems.mapping(record, "generate")
    if not given:
        return None
    known = ("data", "max_examples", "max_new_tokens", "temperature", "top_p")
    problems.unknown(given, known, "generate.")
    files, most = _files(given, "generate.", problems)
    return Generate(files, most, _sampling(given, "generate.", problems, Sampling(256, 0.0, 1.0)))


def _socrates(record: Mapping[str, Any], problems: Problems) -> Socrates | None:
    given = problems.mapping(record, "socrates")
    if not given:
        return None
    own = ("columns", "resamples", "improvement")
    known = ("data", "max_examples", "max_new_tokens", "temperature", "top_p", *own)
    problems.unknown(given, known, "socrates.")
    files, most = _files(given, "socrates.", problems)
    columns = problems.mapping(given, "columns")
    problems.unknown(columns, COLUMNS, "socrates.columns.")
    for key, value in columns.items():
        if not isinstance(value, str) or not value:
            problems.add(f"socrates.columns.{key}: must be the name of a column")
    return Socrates(
        files,
        most,
        # The paper's; an answer is a number, perhaps with a word before it.
        _sampling(given, "socrates.", problems, Sampling(16, 0.6, 0.9)),
        columns=columns,
        resamples=problems.whole(given, "resamples", "socrates.") or Socrates.resamples,
        improvement=problems.number(
            given, "improvement", "socrates.", default=Socrates.improvement
        ),
    )


def _files(
    given: Mapping[str, Any], prefix: str, problems: Problems
) -> tuple[tuple[str, ...], int | None]:
    files = problems.texts(given, "data", prefix, required=True)
    return files, problems.whole(given, "max_examples", prefix)


def _sampling(
    given: Mapping[str, Any], prefix: str, problems: Problems, default: Sampling
) -> Sampling:
    temperature = problems.number(given, "temperature", prefix, default=default.temperature)
    top_p = problems.number(given, "top_p", prefix, default=default.top_p)
    if temperature < 0:
        problems.add(f"{prefix}temperature: must not be negative")
    if not 0 < top_p <= 1:
        problems.add(f"{prefix}top_p: must be more than 0 and at most 1")
    new = problems.whole(given, "max_new_tokens", prefix)
    return Sampling(new or default.max_new_tokens, temperature, top_p)


def _folder(record: Mapping[str, Any], key: str, problems: Problems) -> Path | None:
    name = problems.text(record, key)
    if name is None:
        return None
    if not Path(name).is_dir():
        problems.add(f"{key}: {name} is not a folder")
    return Path(name)


def _baseline(record: Mapping[str, Any], problems: Problems) -> bool | Path:
    given = record.get("baseline")
    if given is None or isinstance(given, bool):
        return bool(given)
    folder = _folder(record, "baseline", problems)
    if folder is None or not (folder / "metrics.json").is_file():
        problems.add("baseline: must be true, or a folder with an earlier evaluation")
    return folder or False


def _template(record: Mapping[str, Any], problems: Problems) -> Path | None:
    name = problems.text(record, "template")
    if name is not None and not Path(name).is_file():
        problems.add(f"template: {name} is not a file")
    return Path(name) if name is not None else None


def _seed(record: Mapping[str, Any], problems: Problems) -> int:
    value = record.get("seed", Evaluation.seed)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        problems.add("seed: must be a whole number of at least 0")
        return Evaluation.seed
    return value
