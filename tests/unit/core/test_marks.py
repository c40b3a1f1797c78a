"""Whose an instance is, by its mark alone."""

from __future__ import annotations

import pytest

from orchestrator.core.marks import Mark, make_mark, owner_of, parse_mark

OURS, THEIRS = "0123abcd", "ffff0000"
LIVE = {make_mark(OURS, "demo-1a2b3c-2")}

MARKS = {
    "of a live run": (make_mark(OURS, "demo-1a2b3c-2"), "run"),
    "of a run that has ended": (make_mark(OURS, "demo-1a2b3c-1"), "orphan"),
    "of another ledger": (make_mark(THEIRS, "demo-1a2b3c-2"), "foreign"),
    "a name with dashes": (make_mark(OURS, "my-sft-run-1a2b3c-10"), "orphan"),
    "no mark": ("my-own-pod", None),
    "nothing": ("", None),
    "a name like ours": ("gpujob-test", None),
    "no instance": (f"gpujob-{OURS}-", None),
    "no number": (f"gpujob-{OURS}-demo", None),
    "more before it": (f"x gpujob-{OURS}-demo-1a2b3c-1", None),
    "more behind it": (make_mark(OURS, "demo-1a2b3c-1") + "\n", None),
    "a ledger too long": (f"gpujob-{OURS}0-demo-1a2b3c-1", None),
}


@pytest.mark.parametrize("case", MARKS)
def test_whose_it_is(case: str) -> None:
    mark, owner = MARKS[case]
    assert owner_of(mark, OURS, LIVE) == owner


def test_a_mark_is_read_as_it_was_made() -> None:
    assert parse_mark(make_mark(OURS, "a-b-1a2b3c-3")) == Mark(OURS, "a-b-1a2b3c-3")
