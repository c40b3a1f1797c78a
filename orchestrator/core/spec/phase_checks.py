"""Checks of a phase beside the others: what it starts from, and what is not its to say."""

from __future__ import annotations

import json
from collections.abc import Iterator

from orchestrator.core.spec.gate_checks import check_required
from orchestrator.core.spec.problems import Problem, Step, dotted
from orchestrator.core.spec.yamltree import Node

START = "{start}"
_WHOLE_RUN = (("budget",), ("notify",), ("checkpoints", "also"))


def check_phase(root: Node, job: Node, index: int) -> Iterator[Problem]:
    """What is wrong with the phase at `index`; `job` is the whole job that it is."""
    phases = root.at("phases")
    phase = phases.child(index) if phases else None
    if phase is None or not isinstance(phase.value, dict):
        return
    for steps in _WHOLE_RUN:
        if phase.at(*steps):
            yield _problem(phase, index, steps, "belongs to the whole run; write it at the top")
    git = phase.at("git")
    if git and isinstance(git.value, dict) and not git.value:
        yield _problem(phase, index, ("git",), "write branch or commit, or both")
    for below, message in check_required(phase.at("gate"), job.at("health")):
        yield _problem(phase, index, ("gate", *below), message)
    yield from _starts(phases, phase, job, index)


def _starts(phases: Node | None, phase: Node, job: Node, index: int) -> Iterator[Problem]:
    start = phase.at("start_from")
    if start is None or not isinstance(start.value, dict):
        if START in _text(job.at("run")):
            words = "{start} would always be empty: start_from with `as: path` says what it is"
            yield _problem(phase, index, (), words)
        return
    named = start.at("phase")
    before = [_text(each.at("name")) for each in _items(phases)[:index]]
    if not before:
        yield _problem(phase, index, ("start_from",), "no phase comes before this one")
        return
    if named and _text(named) not in before:
        words = f"must be a phase before this one: {' or '.join(before)}"
        yield _problem(phase, index, ("start_from", "phase"), words)
        return
    if _text(start.at("as")) == "path":
        if not any(START in _text(job.at(key)) for key in ("run", "train", "patch")):
            words = "nothing holds {start}, so nobody would look at the checkpoint"
            yield _problem(phase, index, ("start_from", "as"), words)
    elif _text(job.at("run")) and not _resumes(job):
        words = (
            "checkpoints.resume says nothing, so the trainer would begin from scratch; "
            "write it, or `as: path`"
        )
        yield _problem(phase, index, ("start_from",), words)


def _resumes(job: Node) -> bool:
    resume = ("checkpoints", "resume")
    told = any(job.at(*resume, key) for key in ("args", "env", "place"))
    return told or "{checkpoint}" in _text(job.at("run"))


def _items(node: Node | None) -> list[Node]:
    return node.value if node and isinstance(node.value, list) else []


def _text(node: Node | None) -> str:
    if node is None or node.value is None:
        return ""
    return node.value if isinstance(node.value, str) else json.dumps(node.plain(), default=str)


def _problem(phase: Node, index: int, steps: tuple[Step, ...], message: str) -> Problem:
    node = phase
    for step in steps:
        node = node.child(step) or node
    return Problem(node.file, node.line, dotted(("phases", index, *steps)), message)
