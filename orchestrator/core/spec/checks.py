"""Checks across keys, made on the tree so that they report beside every other problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.core.spec.problems import MISSING, Problem, Step, Steps, dotted
from orchestrator.core.spec.tokens import holds_token, names_secret
from orchestrator.core.spec.yamltree import Node, select, walk
from remote.trainer import settings as trainer

Finding = tuple[Steps, str]
# Set by gpujob from other keys of the job file; the trainer would see two answers.
RESERVED_ARGS = {
    "output_dir": "checkpoints.path",
    "resume_from_checkpoint": "checkpoints.resume, which the trainer does by itself",
    "deepspeed": "train.deepspeed",
}


def check_job(root: Node) -> list[Problem]:
    """What is wrong with one effective job (no phases, or one phase laid over the rest)."""
    return _run_checks(root, (_one_command, _resume_is_used))


def check_train(root: Node) -> list[Problem]:
    """What the trainer itself would refuse of one effective job, wherever it runs."""
    return _run_checks(root, (_what_the_trainer_says,))


def check_file(root: Node) -> list[Problem]:
    """What is wrong with the file as written, phases included."""
    checks = (_scalars, _secret_names, _volume, _reserved_args, _same_place, _gates, _phase_names)
    return _run_checks(root, checks)


def _run_checks(
    root: Node, checks: tuple[Callable[[Node], Iterator[Finding]], ...]
) -> list[Problem]:
    problems = []
    for check in checks:
        for steps, message in check(root):
            node = _nearest(root, steps)
            problems.append(Problem(node.file, node.line, dotted(steps), message))
    return problems


def _nearest(root: Node, steps: Steps) -> Node:
    node = root
    for step in steps:
        node = node.child(step) or node
    return node


def _value(root: Node, *steps: Step) -> Any:
    node = root.at(*steps)
    return node.value if node else None


def _one_command(root: Node) -> Iterator[Finding]:
    run, train = _value(root, "run"), _value(root, "train")
    if run is not None and train is not None:
        yield ("train",), "run and train exclude each other; keep one"
    if run is None and train is None:
        yield (), "nothing to do: write run (a command of yours) or train (our trainer)"


def _resume_is_used(root: Node) -> Iterator[Finding]:
    args, run = _value(root, "checkpoints", "resume", "args"), _value(root, "run")
    where: Steps = ("checkpoints", "resume", "args")
    if args and _value(root, "train") is not None and run is None:
        yield where, "train resumes by itself; remove this"
    if not isinstance(run, str):
        return
    if args and "{resume}" not in run:
        yield where, "run does not hold {resume}, so a lost box would start from the beginning"
    if not args and "{resume}" in run:
        yield ("run",), "{resume} would always be empty: checkpoints.resume.args says nothing"


def _what_the_trainer_says(root: Node) -> Iterator[Finding]:
    """By the trainer's own table, so that what is rented is not rented for a mistake in `train`.

    What is missing is not repeated: the model of the job file requires the same keys."""
    train = root.at("train")
    if train is None or not isinstance(train.value, dict):
        return
    for problem in trainer.check(train.plain()):
        key, _, message = problem.partition(": ")
        if message != MISSING and not holds_token(problem):
            yield ("train", *key.split(".")), message


def _scalars(root: Node) -> Iterator[Finding]:
    """No scalar or key, wherever it stands, holds a token, a NUL or a number JSON cannot hold."""
    for steps, node in walk(root):
        key = steps[-1] if steps and isinstance(steps[-1], str) else ""
        if steps[:1] == ("secrets",) and len(steps) == 2:
            continue  # the model says more about a name than that it looks like a secret
        if holds_token(key):
            yield steps[:-1], "a key below this looks like a secret; take it out"
        elif holds_token(node.text):
            yield steps, _TAKE_OUT
        elif "\0" in key:
            yield steps[:-1], f"a key below this {_UNSPEAKABLE}"
        elif "\0" in node.text:
            yield steps, _UNSPEAKABLE
        elif isinstance(node.value, float) and not math.isfinite(node.value):
            yield steps, "must be a finite number"


_UNSPEAKABLE = "holds a NUL, which no shell or file name can carry"
_TAKE_OUT = "looks like a secret: take it out of the file and list its name under secrets"


def _secret_names(root: Node) -> Iterator[Finding]:
    for pattern in ("env.*", "checkpoints.resume.env.*", "phases[].env.*"):
        for steps, node in select(root, pattern):
            if node.text and names_secret(str(steps[-1])) and not holds_token(node.text):
                yield steps, _TAKE_OUT


def _volume(root: Node) -> Iterator[Finding]:
    for pattern in ("resources.volume", "phases[].resources.volume"):
        for steps, node in select(root, pattern):
            if isinstance(node.value, dict) and ("id" in node.value) == ("size_gb" in node.value):
                yield steps, "write id (an existing volume) or size_gb (a new one), one of them"


def _reserved_args(root: Node) -> Iterator[Finding]:
    for pattern in ("train.args.*", "phases[].train.args.*"):
        for steps, _ in select(root, pattern):
            if steps[-1] in RESERVED_ARGS:
                yield steps, f"is set from {RESERVED_ARGS[str(steps[-1])]}; remove it here"


def _same_place(root: Node) -> Iterator[Finding]:
    seen: dict[str, int | None] = {}
    for steps, node in select(root, "data[].to"):
        place = node.text.rstrip("/")
        if place in seen and not node.text.endswith("/"):
            yield steps, f"another entry is put there too (line {seen[place]})"
        seen.setdefault(place, node.line)


def _gates(root: Node) -> Iterator[Finding]:
    for steps, node in select(root, "phases[].gate.loss_drop"):
        within, extend = _value(node, "within_steps"), _value(node, "extend_to")
        if isinstance(within, int) and isinstance(extend, int) and extend < within:
            yield (*steps, "extend_to"), f"must not be below within_steps ({within})"


def _phase_names(root: Node) -> Iterator[Finding]:
    seen: set[str] = set()
    for steps, node in select(root, "phases[].name"):
        if node.text in seen:
            yield steps, "another phase has this name"
        seen.add(node.text)
    for steps, _ in select(root, "phases[].phases"):
        yield steps, "a phase has no phases of its own"
