"""What a checkpoint is worth: the numbers that the trainer wrote down at its step, and which of
two is the better."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["min", "max"]

# A metric with one of these words in its name is better the lower it is; every other one is
# better the higher it is. `mode:` in the job file decides where that is wrong.
LOWER_IS_BETTER = frozenset(
    {"loss", "error", "err", "perplexity", "ppl", "nll", "wer", "cer", "mse", "rmse", "mae"}
    | {"bpb", "bpc", "kl", "wasserstein"}
)
USUAL = ("eval_loss", "loss")
MOST_METRICS = 32
MOST_NAME = 64
NOT_METRICS = frozenset({"step", "epoch"})


@dataclass(frozen=True)
class Metric:
    """What `best` means: the metric's name, and whether the lowest or the highest is best."""

    name: str
    mode: Mode


def usual_mode(name: str) -> Mode:
    """The lower the better for a loss, an error, a perplexity and their like, by the words of the
    name (`eval_loss`, `val/word_error_rate`); the higher the better for everything else."""
    words = re.split(r"[^a-z]+", name.lower())
    return "min" if LOWER_IS_BETTER.intersection(words) else "max"


def metrics_of(state: Any, step: int) -> dict[str, float]:
    """What a `trainer_state.json` tells of this very step; `best_metric` when its best is here."""
    if not isinstance(state, Mapping):
        return {}
    history = state.get("log_history")
    lines = history if isinstance(history, list) else []
    found = _merged(lines, step)
    if state.get("best_global_step") == step:
        found.update(_numbers({"best_metric": state.get("best_metric")}))
    return found


def metrics_in_lines(lines: Iterable[bytes], step: int) -> dict[str, float]:
    """The same from the lines of a `metrics.jsonl`."""
    return _merged((_parse(line) for line in lines), step)


def steps_that_told(
    lines: Iterable[bytes], name: str, steps: Collection[int]
) -> dict[int, dict[str, float]]:
    """The same of each of these steps whose lines tell the metric `name`."""
    lines = list(lines)
    # Most lines do not tell it, and parsing is what takes the time.
    telling = [_parse(line) for line in lines if not name.isascii() or name.encode() in line]
    told = [each for each in telling if isinstance(each, Mapping) and name in each]
    late = [step for step in steps if any(each.get("step") == step for each in told)]
    found = {step: metrics_in_lines(lines, step) for step in late}
    return {step: metrics for step, metrics in found.items() if name in metrics}


def _merged(records: Iterable[Any], step: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for record in records:
        if isinstance(record, Mapping) and record.get("step") == step:
            found.update(_numbers(record))
    # `best` is asked of an evaluation: its numbers are the last to be left out.
    kept = sorted(found, key=lambda name: not name.startswith("eval"))[:MOST_METRICS]
    return {name: value for name, value in found.items() if name in kept}


def _numbers(record: Mapping[Any, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(name, str) and 0 < len(name) <= MOST_NAME and name.isprintable()
        if name not in NOT_METRICS and name != "v" and _is_number(value)
    }


def _is_number(value: Any) -> bool:
    """Whether it can be compared: no NaN, and no integer too large to be a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < 1e300 and math.isfinite(value)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
