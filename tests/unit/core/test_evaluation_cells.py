"""Two evaluations of ours are compared cell by cell only where both were asked the same."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.evaluations import Role, view
from orchestrator.core.health.evaluation import Question, compare
from orchestrator.core.health.rule import Verdict

METRIC = "socrates.wasserstein"


def evaluation(who: str, cells: list[float], asked: str = "a" * 64) -> dict[str, Any]:
    """What `python -m remote.trainer evaluate` writes: a list of cells, in the order asked."""
    told = {
        "wasserstein": sum(cells) / len(cells),
        "parse_rate": 0.99,
        "by_cell": cells,
        "uniform": {"wasserstein": 0.3},
    }
    return {"v": 1, "asked": asked, "results": {who: {"socrates": told}}, "comparison": {}}


def verdict(after: dict[str, Any], before: dict[str, Any]) -> Verdict:
    roles: tuple[Role, Role] = ("file", "baseline")
    found, base = (
        view(each, METRIC, role) for each, role in zip((after, before), roles, strict=True)
    )
    question = Question(METRIC, 5.0, "min", confident=True, least_parse_rate=0.95)
    return compare(found, base, question)[0]


BEFORE = [0.18, 0.2, 0.22, 0.24]


@pytest.mark.parametrize(
    ("after", "asked", "said"),
    [
        ([0.15, 0.17, 0.19, 0.2], "a" * 64, Verdict.PASS),
        ([0.02, 0.36, 0.04, 0.3], "a" * 64, Verdict.INCONCLUSIVE),
        ([0.15, 0.17, 0.19, 0.2], "b" * 64, Verdict.INCONCLUSIVE),
        ([0.18, 0.2, 0.22, 0.235], "a" * 64, Verdict.FAIL),
    ],
    ids=["all of them better", "one worse", "not asked the same", "hardly better"],
)
def test_a_gain_is_sure_where_the_cells_agree(
    after: list[float], asked: str, said: Verdict
) -> None:
    found = verdict(evaluation("checkpoint", after, asked), evaluation("baseline", BEFORE))
    assert found is said
