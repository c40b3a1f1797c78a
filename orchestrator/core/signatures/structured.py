"""Steps out of what trainers write for programs: better than any console line, where it is there.

From best to worst, and in this order for `samples.merge`: our own `metrics.jsonl`,
`trainer_state.json`, LLaMA-Factory's `trainer_log.jsonl`, the progress reports of
transformers >= 5.4. All of it comes from a box: what does not fit is left out, nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.signatures.numbers import number, whole
from orchestrator.core.signatures.samples import MOST_VALUES, Sample

_FIELDS = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "tokens": "tokens",
    "num_tokens": "tokens",
    "num_input_tokens_seen": "tokens",
    "tokens_per_s": "tokens_per_s",
    "throughput": "tokens_per_s",
    "epoch": "epoch",
    "current_epoch": "epoch",
}
_PLACES = {"v", "step", "current_steps", "current_step", "total_steps", "max_steps", "at"}


@dataclass(frozen=True)
class Report:
    """What one progress report said: a sign of life even where it holds no sample."""

    sample: Sample | None
    percent: float | None
    remaining_s: float | None


def trainer_state(data: bytes | str) -> list[Sample]:
    """The `log_history` of a `trainer_state.json`: full precision, with steps."""
    state = _object(data)
    history = state.get("log_history")
    total = whole(state.get("max_steps"))
    lines = history if isinstance(history, list) else []
    found = (_sample("trainer_state", line, line.get("step"), total) for line in _objects(lines))
    return [sample for sample in found if sample]


def metrics_lines(lines: Iterable[bytes | str]) -> list[Sample]:
    """Lines of our `metrics.jsonl` (docs/formats.md §8)."""
    records = (_object(line) for line in lines)
    found = (_sample("metrics", each, each.get("step"), each.get("max_steps")) for each in records)
    return [sample for sample in found if sample]


def trainer_log_lines(lines: Iterable[bytes | str]) -> list[Sample]:
    """Lines of LLaMA-Factory's `trainer_log.jsonl`."""
    records = (_object(line) for line in lines)
    found = (
        _sample("trainer_log", each, each.get("current_steps"), each.get("total_steps"))
        for each in records
    )
    return [sample for sample in found if sample]


def progress_report(body: bytes | str) -> Report | None:
    """One POST of transformers' KubeflowCallback; None when it is none.

    It tells the last *logged* numbers beside the *current* step, so with `logging_steps` above 1
    they belong to a step at most that much earlier: prefer every other source."""
    status = _object(body).get("trainerStatus")
    if not isinstance(status, Mapping):
        return None
    listed = status.get("metrics")
    told = {
        str(each.get("name")): each.get("value")
        for each in _objects(listed if isinstance(listed, list) else [])
    }
    told["at"] = status.get("lastUpdatedTime")
    return Report(
        _sample("report", told, told.get("current_step"), told.get("total_steps")),
        number(status.get("progressPercentage")),
        number(status.get("estimatedRemainingSeconds")),
    )


def _sample(source: str, record: Mapping[str, Any], step: Any, max_steps: Any) -> Sample | None:
    known_step = whole(step)
    if known_step is None:
        return None
    fields: dict[str, Any] = {}
    values: dict[str, float] = {}
    for name, value in record.items():
        found = None if name in _PLACES else number(value)
        if found is None or len(name) > 64:
            continue
        if name in _FIELDS:
            fields.setdefault(_FIELDS[name], found)
        elif len(values) < MOST_VALUES:
            values[name] = found
    if not fields and not values:
        return None
    sample = Sample(source, known_step, max_steps=whole(max_steps), values=values)
    return replace(sample, at=_time(record.get("at")), **fields)


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def _objects(values: Iterable[Any]) -> Iterable[dict[str, Any]]:
    return (each for each in values if isinstance(each, dict))


def _object(data: bytes | str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
