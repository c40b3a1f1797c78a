"""YAML with line numbers: text to a tree of nodes that know where they stand.

Built from PyYAML's event stream, so no tag can construct an object, depth and size are bounded
while reading (an alias is counted each time it is used), and duplicate keys are seen.
Scalars follow YAML 1.2's core schema: `1e-5` is a number, `on` and `yes` are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from orchestrator.core.spec.problems import Problem, Step, Steps, dotted
from orchestrator.core.spec.tokens import holds_token

MAX_NODES = 20_000
MAX_DEPTH = 40
MAX_NUMBER = 80  # characters; Python refuses to convert very long ones
Scalar = str | int | float | bool | None

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN")
_NO_TAGS = "tags (!…) are not read in a job file"
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")


@dataclass(frozen=True)
class Node:
    """A scalar, a mapping or a list, and where it stands: for the value of a key, the key's
    line. `text` is a scalar as typed."""

    value: Scalar | dict[str, Node] | list[Node]
    file: str
    line: int | None
    text: str = ""

    def plain(self) -> Any:
        """The value with nodes replaced by what they hold."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, step: Step) -> Node | None:
        if isinstance(self.value, dict) and isinstance(step, str):
            return self.value.get(step)
        if isinstance(self.value, list) and isinstance(step, int):
            return self.value[step] if 0 <= step < len(self.value) else None
        return None

    def at(self, *steps: Step) -> Node | None:
        node: Node | None = self
        for step in steps:
            node = node.child(step) if node else None
        return node

    def children(self) -> Iterator[tuple[Step, Node]]:
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)


def parse_yaml(text: str, *, file: str) -> tuple[Node | None, list[Problem]]:
    """The tree of one YAML document, and what is wrong with it; None when it cannot be read."""
    builder = _Builder(file)
    try:
        return builder.document(yaml.parse(text, Loader=yaml.SafeLoader)), builder.problems
    except _Refused as error:
        return None, [Problem(file, error.line, "", error.message)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return None, [Problem(file, _line(mark), "", _syntax(error))]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"a character that a YAML file may not hold (code {ord(text[error.position])})"
        return None, [Problem(file, line, "", message)]
    except (ValueError, OverflowError):
        # PyYAML lets these out for escapes such as "\UFFFFFFFF".
        return None, [Problem(file, builder.line, "", "not valid YAML: an impossible escape")]


def select(root: Node, pattern: str) -> Iterator[tuple[Steps, Node]]:
    """Every node that `pattern` reaches: dotted keys, `[]` for each item, `*` for each key."""
    found: list[tuple[Steps, Node]] = [((), root)]
    for wanted in pattern.replace("[]", ".[]").split("."):
        found = [
            ((*steps, step), child)
            for steps, node in found
            for step, child in node.children()
            if _fits(wanted, step)
        ]
    yield from found


def walk(node: Node, steps: Steps = ()) -> Iterator[tuple[Steps, Node]]:
    """`node` and everything below it, in order."""
    yield steps, node
    for step, child in node.children():
        yield from walk(child, (*steps, step))


class _Refused(Exception):
    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Builder:
    """One document's events to nodes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.line = 1
        self.problems: list[Problem] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0

    def document(self, events: Iterator[yaml.Event]) -> Node | None:
        self._events = events
        self._next()  # stream start
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        root = self._node(self._next(), (), 0)
        self._next()  # document end
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise _Refused(self.line, "a second document begins here; a job file holds one")
        return root

    def _next(self) -> yaml.Event:
        event = next(self._events)
        self.line = _line(event.start_mark) or self.line
        return event

    def _node(self, event: yaml.Event, steps: Steps, depth: int, line: int | None = None) -> Node:
        line = line or self.line
        self._spend(1)
        if depth > MAX_DEPTH:
            raise _Refused(line, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        before = self._count
        if isinstance(event, yaml.ScalarEvent):
            text = _whole_characters(event.value, line)
            node = Node(_scalar(event, text), self.file, line, text)
        elif isinstance(event, yaml.CollectionStartEvent):
            node = self._collection(event, steps, depth, line)
        else:
            raise _Refused(line, "a value is missing here")
        if event.anchor:
            self._anchors[event.anchor] = (node, self._count - before + 1)
        return node

    def _collection(
        self, event: yaml.CollectionStartEvent, steps: Steps, depth: int, line: int
    ) -> Node:
        if event.tag not in (None, "!"):
            raise _Refused(line, _NO_TAGS)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(steps, depth, line)
        return self._mapping(steps, depth, line)

    def _alias(self, event: yaml.AliasEvent, line: int) -> Node:
        if event.anchor is None or event.anchor not in self._anchors:
            raise _Refused(line, "this alias (*name) has no anchor (&name) that ends above it")
        node, size = self._anchors[event.anchor]
        self._spend(size)
        return Node(node.value, self.file, line, node.text)

    def _sequence(self, steps: Steps, depth: int, line: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, (*steps, len(items)), depth + 1))
        return Node(items, self.file, line)

    def _mapping(self, steps: Steps, depth: int, line: int) -> Node:
        entries: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _Refused(self.line, "a key must be a word")
            key, key_line = _whole_characters(event.value, self.line), self.line
            node = self._node(self._next(), (*steps, key), depth + 1, key_line)
            if key in entries:
                self._duplicate((*steps, key), entries[key], node)
            else:
                entries[key] = node
        return Node(entries, self.file, line)

    def _duplicate(self, steps: Steps, first: Node, again: Node) -> None:
        message = f"the key stands here and on line {first.line}; keep one"
        self.problems.append(Problem(self.file, again.line, dotted(steps), message))

    def _spend(self, nodes: int) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            raise _Refused(self.line, f"more than {MAX_NODES} values, aliases counted each time")


def _fits(wanted: str, step: Step) -> bool:
    if isinstance(step, int):
        return wanted == "[]"
    return wanted in ("*", step)


def _whole_characters(text: str, line: int | None) -> str:
    r"""JSON writes one character as two escapes (`\ud83d\ude00`); PyYAML leaves both halves."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _Refused(line, "half of a character (an escape between d800 and dfff)") from None


def _scalar(event: yaml.ScalarEvent, text: str) -> Scalar:
    if event.tag not in _TEXT_TAGS:
        raise _Refused(_line(event.start_mark), _NO_TAGS)
    if event.style is not None or event.tag is not None:
        return text
    return _resolve(text)


def _resolve(text: str) -> Scalar:
    if len(text) > MAX_NUMBER:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _RADIX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def _line(mark: Any) -> int | None:
    return mark.line + 1 if mark else None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "it cannot be read"
    if "'\\t'" in problem:
        return "a tab; YAML wants spaces here"
    return "not valid YAML" if holds_token(problem) else f"not valid YAML: {problem}"
