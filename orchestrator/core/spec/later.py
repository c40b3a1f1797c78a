"""What a job file may already say and this release does not do yet: refused when it is set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.core.spec.problems import Problem, dotted
from orchestrator.core.spec.yamltree import Node, select

Rule = tuple[Callable[[Any], bool], str]


def _other_than(*supported: Any) -> Callable[[Any], bool]:
    return lambda value: value not in supported


def _is_set(value: Any) -> bool:
    return value not in ([], {}, False)


def _is_remote(value: Any) -> bool:
    return isinstance(value, str) and "://" in value


def _is_absolute(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


# Dotted path ([] each item, * each key) → when it is refused, and what is meant by it.
LATER: dict[str, Rule] = {
    "resources.nodes": (_other_than(1), "more than one node"),
    "resources.volume.size_gb": (_is_set, "making a volume, which would bill on after the run,"),
    "data[].from": (_is_remote, "data that the box fetches"),
    "data[].to": (_is_absolute, "a place outside the work folder"),
    "train.data": (_is_remote, "data that the box fetches"),
    "train.data[]": (_is_remote, "data that the box fetches"),
    "train.evaluate.data": (_is_remote, "data that the box fetches"),
    "train.evaluate.data[]": (_is_remote, "data that the box fetches"),
    "checkpoints.resume.patch": (_is_set, "patching files to resume"),
    "outputs": (_is_set, "mirroring other files"),
    "recovery.keep_failed_minutes": (_other_than(0), "keeping the box of a failed run"),
    "notify": (_is_set, "notification"),
}


def refused_for_now(root: Node) -> Iterator[Problem]:
    """A problem for each key that is set to something this release does not do."""
    for pattern, (refused, what) in LATER.items():
        for steps, node in (*select(root, pattern), *select(root, f"phases[].{pattern}")):
            value = node.plain()
            if value is not None and refused(value):
                message = f"{what} is not supported yet"
                yield Problem(node.file, node.line, dotted(steps), message)
