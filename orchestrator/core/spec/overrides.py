"""`--set a.b=value`: put values into the tree of a job file before it is checked."""

from __future__ import annotations

from orchestrator.core.spec.problems import Problem
from orchestrator.core.spec.tokens import show
from orchestrator.core.spec.yamltree import Node, parse_yaml

ORIGIN = "--set"


def apply_override(root: Node, override: str) -> tuple[Node, list[Problem]]:
    """`root` with the override in it, and what is wrong with the override."""
    path, equals, text = override.partition("=")
    steps = path.strip().split(".")
    if not equals or not all(steps):
        return root, [_problem("", f"write key.key=value, not {show(override)}")]
    value, problems = parse_yaml(text, file=ORIGIN)
    if problems:
        return root, [_problem(path, problem.message) for problem in problems]
    leaf = _from_here(value) if value else Node(None, ORIGIN, None)
    try:
        return _graft(root, steps, leaf), []
    except LookupError as error:
        return root, [_problem(path, str(error.args[0]))]


def _problem(path: str, message: str) -> Problem:
    return Problem(ORIGIN, None, path, message)


def _from_here(node: Node) -> Node:
    """A line within a command's argument helps nobody."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _from_here(child) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_from_here(child) for child in value]
    return Node(value, ORIGIN, None, node.text)


def _graft(node: Node | None, steps: list[str], leaf: Node) -> Node:
    if not steps:
        return leaf
    head, rest = steps[0], steps[1:]
    if node is None or node.value is None:
        return Node({head: _graft(None, rest, leaf)}, ORIGIN, None)
    if isinstance(node.value, dict):
        entries = {**node.value, head: _graft(node.value.get(head), rest, leaf)}
        return Node(entries, node.file, node.line)
    if isinstance(node.value, list):
        return Node(_graft_item(node.value, head, rest, leaf), node.file, node.line)
    raise LookupError(f"nothing can be set below a single value ({head})")


def _graft_item(items: list[Node], head: str, rest: list[str], leaf: Node) -> list[Node]:
    if not head.isascii() or not head.isdigit() or int(head) >= len(items):
        raise LookupError(f"this is a list of {len(items)}; {head} is not an index into it")
    place = int(head)
    return [*items[:place], _graft(items[place], rest, leaf), *items[place + 1 :]]
