"""An evaluation's JSON as a gate asks after it: a flat mapping with its metric, its cells and how
much of it could be read. Our own evaluation (formats.md §9) and files of the user's own shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

# What `core.health.evaluation` reads beside the metric, and our own names for it.
_BESIDE = {"cells": "by_cell", "parse_rate": "parse_rate"}
Role = Literal["file", "baseline"]


def view(data: Mapping[str, Any], metric: str, role: Role) -> dict[str, Any]:
    """`metric` may be dotted. Of an evaluation of ours the result that `role` means is taken: the
    checkpoint's, or the baseline's, or the only one that there is."""
    told = _result(data, role)
    *path, last = metric.split(".")
    near = _within(told, path) if metric not in told else told
    found: dict[str, Any] = dict(near)
    if metric not in found and last in near:
        found[metric] = near[last]
    if _is_ours(data):
        found |= _beside(near, last)
        found["cells"] = _cells(found.get("cells"), data.get("asked"))
    return found


def _is_ours(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("results"), Mapping) and "comparison" in data


def _result(data: Mapping[str, Any], role: Role) -> Mapping[str, Any]:
    if not _is_ours(data):
        return data
    results = data["results"]
    wanted = ("checkpoint", "baseline") if role == "file" else ("baseline", "checkpoint")
    found: Any = next((results[each] for each in wanted if each in results), {})
    return found if isinstance(found, Mapping) else {}


def _within(data: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    near: Any = data
    for each in path:
        near = near.get(each) if isinstance(near, Mapping) else None
    return near if isinstance(near, Mapping) else {}


def _beside(near: Mapping[str, Any], last: str) -> dict[str, Any]:
    found: dict[str, Any] = {name: near[ours] for name, ours in _BESIDE.items() if ours in near}
    guess = near.get("uniform")
    found["uniform"] = guess.get(last) if isinstance(guess, Mapping) else None
    return found


def _cells(told: Any, asked: Any) -> Any:
    """Ours lists its cells in the order of the items: the ninth of two evaluations is one cell only
    where both were asked the same, so what was asked is in the name."""
    if not isinstance(told, list) or not isinstance(asked, str):
        return told
    return {f"{asked} {index}": value for index, value in enumerate(told)}
