"""ROUGE-L by hand."""

from __future__ import annotations

import random

import pytest

from remote.trainer.evaluate.overlap import longest_common, rouge_l


@pytest.mark.parametrize(
    ("said", "reference", "expected"),
    [
        ("the fox jumps", "the fox jumps", 1.0),
        ("The fox, jumps!", "the FOX jumps", 1.0),
        ("the fox", "the lazy dog", 2 * 1 / 5),
        # the ... dog and sleeps: 4 in common, of 6 and 5.
        ("the quick fox dog and sleeps", "the dog and a sleeps", 2 * 4 / 11),
        ("dog fox", "fox dog", 2 * 1 / 4),
        ("", "fox", 0.0),
        ("fox", "", 0.0),
    ],
)
def test_rouge_l(said: str, reference: str, expected: float) -> None:
    assert rouge_l(said, reference) == pytest.approx(expected)


def test_as_the_table_of_the_textbook() -> None:
    pick = random.Random(0)
    for _ in range(50):
        one, other = ([pick.choice("abcd") for _ in range(pick.randrange(1, 90))] for _ in "12")
        assert longest_common(one, other) == _by_table(one, other)


def _by_table(one: list[str], other: list[str]) -> int:
    row = [0] * (len(other) + 1)
    for a in one:
        before = 0
        for at, b in enumerate(other, start=1):
            before, row[at] = row[at], before + 1 if a == b else max(row[at], row[at - 1])
    return row[-1]
