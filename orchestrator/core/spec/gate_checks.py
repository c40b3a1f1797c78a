"""What a gate requires: a rule that nobody judges would never pass, and a run wait for a person."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.core.health.rules import RULES
from orchestrator.core.health.user import DEFAULTS, OwnRule
from orchestrator.core.spec.problems import Steps
from orchestrator.core.spec.yamltree import Node

OWN = "rules"  # the flag of the user's own rules


def check_required(gate: Node | None, health: Node | None) -> Iterator[tuple[Steps, str]]:
    """What is wrong with `require` of a phase's gate, below the gate; `health` is the phase's."""
    required = gate.at("require") if gate else None
    flags = _flags()
    own = dict(_own_rules(health))
    for index, node in enumerate(_items(required)):
        name = node.text
        told = health.at(flags[name]) if health and name in flags else None
        if name in flags and told is not None and told.value == "off":
            words = f"health.{flags[name]} is off, so this could never pass; turn it on, or"
            yield ("require", index), f"{words} remove it here"
        elif own.get(name) == "off":
            yield ("require", index), "its action is off, so this could never pass"
        elif name and name not in {*flags, *own}:
            meant = _meant(name, [*flags, *own])
            yield ("require", index), f"no rule has this id or name; {meant}"


def _flags() -> Mapping[str, str]:
    """The flag of every rule, by its ids, and by the flag itself."""
    ids = {name: rule.flag for rule in RULES for name in (rule.id, *rule.also)}
    return {**ids, **{flag: flag for flag in DEFAULTS}}


def _own_rules(health: Node | None) -> Iterator[tuple[str, Any]]:
    """The names of the user's own rules with their actions; what is no rule is told elsewhere."""
    for node in _items(health.at(OWN) if health else None):
        try:
            rule = OwnRule(**node.plain())
            name = rule.id
        except (TypeError, ValueError):
            continue
        yield OWN, ""
        yield name, rule.action


def _meant(name: str, known: list[str]) -> str:
    lower = {each.lower(): each for each in known if each.isprintable()}
    typed = name[:60].lower().replace("-", "_")
    found = difflib.get_close_matches(typed, lower, n=1)
    return f"did you mean {lower[found[0]]}?" if found else "docs/health.md lists them"


def _items(node: Node | None) -> list[Node]:
    return node.value if node and isinstance(node.value, list) else []
