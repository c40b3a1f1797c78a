"""The SOCRATES measures over items and a model's answers, with controls, and the comparison of a
checkpoint with its baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from remote.trainer.evaluate import distance
from remote.trainer.evaluate.items import Item

CONTROL_DRAWS = 20
ENOUGH_PARSED = 0.95
ALL_PARSED = 0.99


@dataclass(frozen=True)
class Cell:
    """The answers to one task under one condition of one study."""

    study: str
    condition: str
    task: str
    wasserstein: float
    items: int


def answers(items: Sequence[Item], texts: Sequence[str]) -> list[float | None]:
    """The number that each text says; None when it says none, or one off a scale that was
    declared. Off a scale that was only observed it counts as the scale's end."""
    return [_on_scale(item, distance.answer(text)) for item, text in zip(items, texts, strict=True)]


def cells(items: Sequence[Item], given: Sequence[float | None]) -> list[Cell]:
    """The distance in each cell, in the order in which cells first appear. Nothing is dropped:
    what is no answer counts as the worst there is."""
    members: dict[tuple[str, str, str], list[int]] = {}
    for at, item in enumerate(items):
        members.setdefault(item.cell, []).append(at)
    return [_cell(items, given, name, rows) for name, rows in members.items()]


def studies(items: Sequence[Item]) -> list[str]:
    """The study of each cell, in the order of `cells`."""
    return [study for study, _, _ in dict.fromkeys(item.cell for item in items)]


def measures(items: Sequence[Item], given: Sequence[float | None], *, seed: int) -> dict[str, Any]:
    """All measures, and what chance and people themselves would reach on the same items."""
    people = [each.response for each in items]
    there = cells(items, given)
    human, predicted = _scaled(items, people), _scaled(items, _scored(items, given))
    errors = predicted - human
    parsed = sum(each is not None for each in given)
    return {
        "wasserstein": _wasserstein(there),
        "accuracy": float(1 - np.abs(errors).mean()),
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "correlation": distance.correlation(human, predicted),
        "parse_rate": parsed / len(items),
        "distinct_answers": len({each for each in given if each is not None}),
        "distinct_responses": len(set(people)),
        "items": len(items),
        "cells": len(there),
        "studies": len({cell.study for cell in there}),
        "uniform": _control(items, seed=seed, draw=_uniform),
        "resampled": _control(items, seed=seed, draw=_resampled),
        "by_cell": [cell.wasserstein for cell in there],
    }


def compare(
    baseline: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    studies: Sequence[str],
    *,
    needed: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """GO, NO-GO or inconclusive, with every rule, its value and what was needed.

    Takes what `measures` gave for the same items; `studies` are those of the cells. Raises
    ValueError when the items cannot have been the same.
    """
    before, after = baseline["by_cell"], checkpoint["by_cell"]
    if not len(before) == len(after) == len(studies):
        raise ValueError("baseline and checkpoint were not asked the same items")
    gain = distance.improvement(baseline["wasserstein"], checkpoint["wasserstein"])
    low, high = distance.improvement_interval(
        studies, before, after, resamples=resamples, seed=seed
    )
    rules = [
        _rule("improvement", gain, needed, ok=gain >= needed),
        _rule("interval above zero", low, 0.0, ok=low > 0, else_="inconclusive"),
        _rule(
            "better than uniform",
            checkpoint["wasserstein"],
            checkpoint["uniform"]["wasserstein"],
            ok=checkpoint["wasserstein"] < checkpoint["uniform"]["wasserstein"],
        ),
        _parsed("baseline parses", baseline["parse_rate"]),
        _parsed("checkpoint parses", checkpoint["parse_rate"]),
        _rule(
            "answers differ",
            checkpoint["distinct_answers"],
            2,
            ok=checkpoint["distinct_answers"] >= 2 or checkpoint["distinct_responses"] < 2,
        ),
    ]
    verdicts = {rule["verdict"] for rule in rules}
    verdict = next((v for v in ("fail", "inconclusive") if v in verdicts), "pass")
    return {
        "verdict": {"fail": "no-go", "inconclusive": "inconclusive", "pass": "go"}[verdict],
        "improvement": _finite(gain),
        "improvement_low": _finite(low),
        "improvement_high": _finite(high),
        "rules": rules,
    }


def _rule(
    name: str, value: float, needed: float, *, ok: bool, else_: str = "fail"
) -> dict[str, Any]:
    verdict = "pass" if ok else ("fail" if math.isnan(value) else else_)
    return {"rule": name, "value": _finite(value), "needed": needed, "verdict": verdict}


def _parsed(name: str, rate: float) -> dict[str, Any]:
    rule = _rule(name, rate, ENOUGH_PARSED, ok=rate >= ENOUGH_PARSED)
    return {**rule, "verdict": "warn"} if ENOUGH_PARSED <= rate < ALL_PARSED else rule


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _on_scale(item: Item, value: float | None) -> float | None:
    if value is None or item.low <= value <= item.high:
        return value
    return None if item.declared else min(max(value, item.low), item.high)


def _scored(items: Sequence[Item], given: Sequence[float | None]) -> list[float]:
    """Person by person, where what is no answer is the worst for each."""
    return [
        distance.worst(item.response, low=item.low, high=item.high) if value is None else value
        for item, value in zip(items, given, strict=True)
    ]


def _cell(
    items: Sequence[Item],
    given: Sequence[float | None],
    name: tuple[str, str, str],
    rows: list[int],
) -> Cell:
    far = distance.of_answers(
        [items[row].response for row in rows],
        [given[row] for row in rows],
        low=items[rows[0]].low,
        high=items[rows[0]].high,
    )
    return Cell(*name, wasserstein=far, items=len(rows))


def _wasserstein(there: Sequence[Cell]) -> float:
    return distance.by_study([c.study for c in there], [c.wasserstein for c in there])


def _scaled(items: Sequence[Item], values: Sequence[float]) -> np.ndarray:
    low, high = (np.asarray([getattr(item, end) for item in items]) for end in ("low", "high"))
    return (np.asarray(values, float) - low) / (high - low)


def _control(items: Sequence[Item], *, seed: int, draw: Any) -> dict[str, float]:
    """The mean over draws of as many answers as there are items: fewer answers make a larger
    distance by themselves, for a control as for a model."""
    generator = np.random.Generator(np.random.PCG64(seed))
    people = _scaled(items, [each.response for each in items])
    far, errors = [], []
    for _ in range(CONTROL_DRAWS):
        values = draw(items, generator)
        far.append(_wasserstein(cells(items, values)))
        errors.append(float(np.abs(_scaled(items, values) - people).mean()))
    return {"wasserstein": float(np.mean(far)), "accuracy": 1 - float(np.mean(errors))}


def _uniform(items: Sequence[Item], generator: np.random.Generator) -> list[float]:
    return [
        float(generator.integers(int(item.low), int(item.high) + 1))
        if item.whole
        else float(generator.uniform(item.low, item.high))
        for item in items
    ]


def _resampled(items: Sequence[Item], generator: np.random.Generator) -> list[float]:
    """Other people's answers to the same task under the same condition."""
    pools: dict[tuple[str, str, str], list[float]] = {}
    for item in items:
        pools.setdefault(item.cell, []).append(item.response)
    return [pools[item.cell][generator.integers(len(pools[item.cell]))] for item in items]
