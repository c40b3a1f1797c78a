"""Text to a tree with line numbers: the core schema, and everything that is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from orchestrator.core.spec.yamltree import MAX_NODES, Node, parse_yaml, select


def tree(text: str) -> Node:
    root, problems = parse_yaml(text, file="f")
    assert problems == []
    assert root is not None
    return root


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("12", 12),
        ("-3", -3),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("0b1", "0b1"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_scalars_follow_the_core_schema(text: str, expected: Any) -> None:
    value = tree(f"k: {text}\n").plain()["k"]
    assert value == expected
    assert type(value) is type(expected)


def test_nodes_know_their_key_line_and_their_text() -> None:
    root = tree("a:\n  - x\n  -\n    b: 1.50\nc: >\n  folded\n")
    assert [(steps, node.line) for steps, node in select(root, "a[]")] == [
        (("a", 0), 2),
        (("a", 1), 4),
    ]
    node = root.at("a", 1, "b")
    assert node is not None
    assert (node.line, node.text, node.value) == (4, "1.50", 1.5)
    assert root.at("c") == Node("folded\n", "f", 5, "folded\n")
    assert root.at("a", 7) is root.at("a", "b") is root.at("c", "d") is None


def test_an_alias_stands_where_it_is_used() -> None:
    root = tree("a: &x {k: 1}\nb: *x\n")
    assert root.plain() == {"a": {"k": 1}, "b": {"k": 1}}
    assert root.at("b").line == 2  # type: ignore[union-attr]


def test_a_key_written_twice_names_both_lines_and_keeps_the_first() -> None:
    root, problems = parse_yaml("a:\n  x: 1\n  y: 2\n  x: 3\na: 4\n", file="f.yaml")
    assert [str(problem) for problem in problems] == [
        "f.yaml:4: a.x: the key stands here and on line 2; keep one",
        "f.yaml:5: a: the key stands here and on line 1; keep one",
    ]
    assert root is not None
    assert root.plain() == {"a": {"x": 1, "y": 2}}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        pytest.param("a: 1\n\tb: 2\n", 2, "a tab; YAML wants spaces", id="tab"),
        pytest.param("a: b: c\n", 1, "mapping values are not allowed here", id="syntax"),
        pytest.param("a: [1\nb: 2\n", 2, "not valid YAML", id="open bracket"),
        pytest.param("a: 1\n---\nb: 2\n", 2, "a second document", id="two documents"),
        pytest.param("a: 1\nb: !!python/object/apply:os.system [x]\n", 2, "tags", id="object"),
        pytest.param("a: !mine 1\n", 1, "tags", id="scalar tag"),
        pytest.param("a: 1\nb: *x\n", 2, "has no anchor", id="unknown alias"),
        pytest.param("a: &x [*x]\n", 1, "has no anchor", id="alias within itself"),
        pytest.param("? [a]\n: 1\n", 1, "a key must be a word", id="complex key"),
        pytest.param('a: 1\nb: "\\UFFFFFFFF"\n', 2, "impossible escape", id="escape"),
        pytest.param("a: 1\nb: \x07\n", 2, "code 7", id="control character"),
        pytest.param(r'a: "\ud83d"', 1, "half of a character", id="half a character"),
        pytest.param("a: " + "[" * 5000, 1, "nested deeper", id="deep"),
        pytest.param(BOMB, 5, f"more than {MAX_NODES} values", id="alias bomb"),
    ],
)
def test_what_cannot_be_read_is_one_problem(text: str, line: int, says: str) -> None:
    root, problems = parse_yaml(text, file="f.yaml")
    assert root is None
    assert [(problem.file, problem.line) for problem in problems] == [("f.yaml", line)]
    assert says in problems[0].message


def test_a_character_that_json_writes_in_two_halves_is_one() -> None:
    assert tree(json.dumps({"\U0001f600": "\U0001f600"})).plain() == {"\U0001f600": "\U0001f600"}


def test_an_empty_document_has_no_tree() -> None:
    assert parse_yaml("# nothing\n", file="f") == (None, [])
