"""The files that an evaluation leaves, with numbers that prove nothing but that they are read.

docs/formats.md section 9 is the shape of `python -m remote.trainer evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Mapping


def write(folder: Path, settings: Mapping[str, Any]) -> None:
    """`metrics.json` as our own evaluation writes it: better with a checkpoint than without."""
    results = {"baseline": {"socrates": _answers(0.19)}}
    comparison: Dict[str, Any] = {}
    if settings.get("checkpoint"):
        results["checkpoint"] = {"socrates": _answers(0.15)}
        verdict = {"verdict": "go", "improvement": 0.21, "rules": []}
        comparison = {"socrates": {**verdict, "improvement_low": 0.1, "improvement_high": 0.3}}
    told = {"v": 1, "results": results, "comparison": comparison}
    save(folder / "metrics.json", told)


def plain(path: Path, metric: str) -> None:
    """A flat file of metrics."""
    save(path, {metric or "loss": 0.5, "parse_rate": 1.0})


def save(path: Path, told: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))


def _answers(distance: float) -> Dict[str, Any]:
    uniform = {"wasserstein": 0.2, "accuracy": 0.6}
    return {
        "wasserstein": distance,
        "accuracy": 0.7,
        "mae": 0.2,
        "rmse": 0.3,
        "correlation": 0.3,
        "parse_rate": 1.0,
        "distinct_answers": 5,
        "items": 10,
        "cells": 2,
        "studies": 1,
        "uniform": uniform,
        "resampled": uniform,
    }
