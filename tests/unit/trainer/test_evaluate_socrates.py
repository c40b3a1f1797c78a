"""Items, answers, controls and the verdict."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from data_kit import chat, jsonl

from remote.trainer.data import files
from remote.trainer.evaluate import socrates
from remote.trainer.evaluate.items import Columns, Item, load
from remote.trainer.problems import TrainError


def item(response: float, *, task: str = "1", study: str = "s", declared: bool = True) -> Item:
    question = tuple(chat("How much?"))
    return Item(study, "1", task, question, response, 1, 5, declared, True, "file: row 1")


def row(response: Any, **changes: Any) -> dict[str, Any]:
    base = {"study_id": "s", "condition_num": 1, "task_num": 1, "prompt": "How much?"}
    return {**base, "response": response, **changes}


def read(tmp_path: Path, *rows: Any, most: int | None = None, **names: str) -> Any:
    path = jsonl(tmp_path / "a.jsonl", rows)
    return load([str(path)], Columns(**names), most=most, seed=0, key="socrates.data")


PEOPLE = [item(value) for value in (1, 2, 2, 3, 5)]


def test_answers_on_and_off_the_scale() -> None:
    texts = ["4", "Response: 2", "none", "7", "0"]
    assert socrates.answers(PEOPLE, texts) == [4, 2, None, None, None]
    observed = [item(3, declared=False)] * 5
    assert socrates.answers(observed, texts) == [4, 2, None, 5, 1]


def test_measures_by_hand() -> None:
    found = socrates.measures(PEOPLE, [3, 3, 4, 5, 5], seed=0)
    assert found["wasserstein"] == pytest.approx(0.35)
    assert found["by_cell"] == [pytest.approx(0.35)]
    # The answers are 2, 1, 2, 2 and 0 off, of 4.
    assert found["mae"] == pytest.approx(7 / 5 / 4)
    assert found["accuracy"] == pytest.approx(1 - 7 / 5 / 4)
    assert found["rmse"] == pytest.approx((13 / 5) ** 0.5 / 4)
    assert (found["parse_rate"], found["distinct_answers"], found["items"]) == (1, 3, 5)
    assert (found["cells"], found["studies"]) == (1, 1)


def test_what_is_no_answer_counts_as_the_worst() -> None:
    """For each person 5 in place of 1, 5 of 2, 5 of 2, 5 of 3 and 1 of 5; as a distribution all
    of them at 5, where the people are 4, 3, 3, 2 and 0 away."""
    found = socrates.measures(PEOPLE, [None] * 5, seed=0)
    assert found["parse_rate"] == 0
    assert found["mae"] == pytest.approx((4 + 3 + 3 + 2 + 4) / 5 / 4)
    assert found["wasserstein"] == pytest.approx((4 + 3 + 3 + 2 + 0) / 5 / 4)
    assert found["distinct_answers"] == 0


def test_no_answer_is_never_perfect() -> None:
    """Of people at both ends, too: there the worst for each makes the same distribution."""
    split = [item(value) for value in (1, 1, 5, 5)]
    found = socrates.measures(split, [None] * 4, seed=0)
    assert found["wasserstein"] == pytest.approx(0.5)
    assert found["wasserstein"] > found["uniform"]["wasserstein"]


def test_tasks_are_never_mixed() -> None:
    """Two tasks answered the wrong way round are as a mixture perfect, and each all wrong."""
    mixed = [*(item(1, task="a") for _ in range(3)), *(item(5, task="b") for _ in range(3))]
    found = socrates.measures(mixed, [5, 5, 5, 1, 1, 1], seed=0)
    assert found["wasserstein"] == pytest.approx(1.0)
    assert found["cells"] == 2


def test_the_controls_are_what_chance_and_people_reach() -> None:
    """Of people spread evenly a uniform guess is as near as people are; of people who all say
    3 it is (2 + 1 + 0 + 1 + 2) / 5 / 4 away."""
    even = [item(value) for value in (1, 2, 3, 4, 5) * 200]
    found = socrates.measures(even, [3.0] * 1000, seed=0)
    assert found["uniform"]["wasserstein"] == pytest.approx(0, abs=0.03)
    assert found["resampled"]["wasserstein"] == pytest.approx(0, abs=0.03)
    alike = [item(3) for _ in range(1000)]
    found = socrates.measures(alike, [3.0] * 1000, seed=0)
    assert found["uniform"]["wasserstein"] == pytest.approx(0.3, abs=0.01)
    assert found["uniform"]["accuracy"] == pytest.approx(0.7, abs=0.01)
    assert found["resampled"]["wasserstein"] == 0


def measured(*cells: float, parse_rate: float = 1.0, **changes: Any) -> dict[str, Any]:
    far = sum(cells) / len(cells)
    base = {"wasserstein": far, "by_cell": list(cells), "uniform": {"wasserstein": 0.3}}
    count = {"distinct_answers": 5, "distinct_responses": 5, "parse_rate": parse_rate}
    return {**base, **count, **changes}


BASE = measured(*[0.2, 0.22, 0.18, 0.2] * 5)
BETTER = measured(*[0.18, 0.2, 0.17, 0.18] * 5)


@pytest.mark.parametrize(
    ("before", "after", "verdict", "not_passed"),
    [
        (BASE, BETTER, "go", []),
        (BETTER, BASE, "no-go", ["improvement", "interval above zero"]),
        (BASE, measured(*[0.198, 0.217, 0.178, 0.198] * 5), "no-go", ["improvement"]),
        # A large mean gain that comes from a few cells.
        (BASE, measured(*[0.0, 0.3, 0.15, 0.29] * 5), "inconclusive", ["interval above zero"]),
        (BASE, {**BETTER, "uniform": {"wasserstein": 0.1}}, "no-go", ["better than uniform"]),
        (BASE, {**BETTER, "parse_rate": 0.94}, "no-go", ["checkpoint parses"]),
        ({**BASE, "parse_rate": 0.94}, BETTER, "no-go", ["baseline parses"]),
        (BASE, {**BETTER, "parse_rate": 0.97}, "go", ["checkpoint parses"]),
        (BASE, {**BETTER, "distinct_answers": 1}, "no-go", ["answers differ"]),
        (measured(0.0, 0.0), measured(0.0, 0.0), "no-go", ["improvement", "interval above zero"]),
    ],
    ids=["go", "worse", "too-little", "noise", "uniform", "unparsed", "baseline-unparsed", "warned",
         "all-the-same", "undefined"],
)  # fmt: skip
def test_verdicts(
    before: dict[str, Any], after: dict[str, Any], verdict: str, not_passed: list[str]
) -> None:
    found = socrates.compare(
        before, after, ["a"] * len(before["by_cell"]), needed=0.05, resamples=400, seed=0
    )
    assert found["verdict"] == verdict
    assert [rule["rule"] for rule in found["rules"] if rule["verdict"] != "pass"] == not_passed


def test_five_percent_is_not_rounded_up() -> None:
    """4.96 % would be 5.0 % with one decimal."""
    after = measured(*[0.9504 * cell for cell in BASE["by_cell"]])
    found = socrates.compare(BASE, after, ["a"] * 20, needed=0.05, resamples=100, seed=0)
    assert found["improvement"] == pytest.approx(0.0496)
    assert found["verdict"] == "no-go"


def test_other_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not asked the same"):
        socrates.compare(BASE, measured(0.1), ["a"] * 20, needed=0.05, resamples=9, seed=0)


def test_scales_are_declared_or_observed_over_all_conditions(tmp_path: Path) -> None:
    rows = [
        row(2, condition_num=1),
        row(7, condition_num=2),
        row(3, task_num=2, scale_min=0, scale_max=10),
        row(4, task_num=3),
        row(4, task_num=3),
    ]
    found = read(tmp_path, *rows)
    scales = [(each.task, each.low, each.high, each.declared) for each in found.asked]
    assert scales == [("1", 2, 7, False), ("1", 2, 7, False), ("2", 0, 10, True)]
    assert (found.constant, found.observed) == (2, 2)
    assert all(each.whole for each in found.asked)


def test_other_names_and_texts_for_numbers(tmp_path: Path) -> None:
    rows = [
        {"s": "x", "c": "y", "t": "z", "input": chat("How?"), "output": f"Response: {n}"}
        for n in (1.5, 2)
    ]
    found = read(
        tmp_path, *rows, study="s", condition="c", task="t", prompt="input", response="output"
    )
    assert [each.response for each in found.asked] == [1.5, 2]
    assert not found.asked[0].whole
    assert found.asked[0].prompt == tuple(chat("How?"))


def test_messages_without_their_answer_are_a_prompt(tmp_path: Path) -> None:
    said = {"messages": chat("How much?", "4"), "prompt": None}
    found = read(tmp_path, row(4, **said), row(5, **said))
    assert found.asked[0].prompt == tuple(chat("How much?"))


def test_whole_cells_are_drawn(tmp_path: Path) -> None:
    rows = [row(n % 5, task_num=n // 10) for n in range(200)]
    found = read(tmp_path, *rows, most=55)
    assert len(found.asked) == 50
    tasks = [each.task for each in found.asked]
    assert {tasks.count(task) for task in tasks} == {10}
    assert read(tmp_path, *rows, most=55) == found


def test_only_what_is_drawn_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 2**16)
    rows = [row(n % 5, task_num=n // 10, prompt="word " * 2000) for n in range(1000)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    del rows
    tracemalloc.start()
    try:
        found = load([str(path)], Columns(), most=30, seed=0, key="socrates.data")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found.asked), found.asked[0].high) == (30, 4)
    assert peak < path.stat().st_size / 4


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row(1, task_num=None), "row 2: has no `task_num`: answers are compared within"),
        (row("unsure"), "row 2: `response` is 'unsure', which is no number"),
        (row(True), "row 2: `response` is True, which is no number"),
        (row(9, scale_min=1, scale_max=5), "row 2: `response` is 9, not between 1 and 5"),
        (row(1, prompt=None), "row 2: has neither `prompt` nor `messages`"),
        ("x", "row 2: not a mapping"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, bad: Any, problem: str) -> None:
    with pytest.raises(TrainError, match=problem):
        read(tmp_path, row(1), bad)


def test_a_question_that_all_answer_alike_has_no_scale(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="no question has answers that differ"):
        read(tmp_path, row(3), row(3))
