"""An evaluation's JSON as a gate reads it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.evaluations import Role, view

OURS = {
    "v": 1,
    "results": {
        "baseline": {"socrates": {"wasserstein": 0.3, "parse_rate": 1.0, "by_cell": {"a": 0.3}}},
        "checkpoint": {
            "socrates": {
                "wasserstein": 0.2,
                "parse_rate": 0.97,
                "by_cell": {"a": 0.2},
                "uniform": {"wasserstein": 0.25},
            },
            "loss": {"loss": 1.5},
        },
    },
    "comparison": {},
}
OF_THE_BASE = {**OURS, "results": {"baseline": OURS["results"]["baseline"]}}  # type: ignore[index]


@pytest.mark.parametrize(
    ("data", "metric", "role", "value"),
    [
        ({"loss": 2.0}, "loss", "file", 2.0),
        ({"a": {"b": 2.0}}, "a.b", "file", 2.0),
        ({"a.b": 3.0, "a": {"b": 2.0}}, "a.b", "file", 3.0),
        (OURS, "socrates.wasserstein", "file", 0.2),
        (OURS, "socrates.wasserstein", "baseline", 0.3),
        (OF_THE_BASE, "socrates.wasserstein", "file", 0.3),
        (OURS, "loss.loss", "file", 1.5),
        (OURS, "socrates.missing", "file", None),
        ({"a": 3}, "a.b", "file", None),
        ({"results": 3, "comparison": 1}, "a", "file", None),
    ],
)
def test_the_metric(data: dict[str, Any], metric: str, role: Role, value: float | None) -> None:
    assert view(data, metric, role).get(metric) == value


def test_of_ours_cells_and_guessing_come_along() -> None:
    found = view(OURS, "socrates.wasserstein", "file")
    assert (found["cells"], found["parse_rate"], found["uniform"]) == ({"a": 0.2}, 0.97, 0.25)
