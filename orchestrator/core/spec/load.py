"""From a job file's bytes to a job, or to everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.core.spec.checks import check_file, check_job, check_train
from orchestrator.core.spec.explain import explain
from orchestrator.core.spec.job import Job, Phase
from orchestrator.core.spec.later import refused_for_now
from orchestrator.core.spec.overrides import apply_override
from orchestrator.core.spec.phase_checks import check_phase
from orchestrator.core.spec.problems import MISSING, JobFileError, Problem, Steps
from orchestrator.core.spec.yamltree import Node, parse_yaml, select

MAX_BYTES = 1_000_000
# Numbers here are words to whoever reads them: `12.10` and `007` are passed on as typed.
AS_TYPED = ("env.*", "checkpoints.resume.env.*", "resources.min_cuda")
_PHASE_ONLY = ("name", "stop_after_steps", "gate", "start_from", "git", "hold_minutes")


def load_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """The job in the file at `path` with each `a.b=value` of `overrides` put in.

    Raises JobFileError (exit 2) with every problem of the file and the overrides at once.
    """
    base = path.absolute().parent
    return parse_job(_read(path), file=str(path), base=base, overrides=overrides)


def parse_job(data: bytes, *, file: str, base: Path, overrides: Sequence[str] = ()) -> Job:
    """`load_job` for bytes at hand: `file` names them in problems, `base` is their folder."""
    root, problems = _tree(data, file)
    for override in overrides:
        root, more = apply_override(root, override)
        problems += more
    problems += _examine(root)
    if problems:
        raise JobFileError(problems)
    return _built(root).at(base, _parts(root))


def _built(root: Node) -> Job:
    """The job as written; where its phases bring what it lacks, as it is in the first of them."""
    plain = _plain(root)
    try:
        return Job.model_validate(plain)
    except ValidationError:
        first = _plain(overlay(root, _phases(root)[0]))
        return Job.model_validate({**first, "phases": plain["phases"]})


def _parts(root: Node) -> tuple[tuple[Phase, Job], ...]:
    return tuple(
        (Phase.model_validate(each.plain()), Job.model_validate(_plain(overlay(root, each))))
        for each in _phases(root)
    )


def _phases(root: Node) -> list[Node]:
    phases = root.at("phases")
    return phases.value if phases and isinstance(phases.value, list) else []


def _read(path: Path) -> bytes:
    try:
        # A pipe or a device would be read for ever.
        if not path.exists():
            raise _refusal(path, "there is no such file")
        if not path.is_file():
            raise _refusal(path, "is not a regular file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _refusal(path, f"cannot be read: {error}") from error


def _refusal(path: Path | str, message: str) -> JobFileError:
    return JobFileError([Problem(str(path), None, "", message)])


def _tree(data: bytes, file: str) -> tuple[Node, list[Problem]]:
    if len(data) > MAX_BYTES:
        raise _refusal(file, f"is larger than {MAX_BYTES // 1_000_000} MB; is this the job file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refusal(file, "is not a text file (UTF-8)") from None
    if "\0" in text:
        raise _refusal(file, "is a binary file")
    root, problems = parse_yaml(text, file=file)
    if root is None:
        raise JobFileError(problems or [Problem(file, None, "", "is empty")])
    if not isinstance(root.value, dict):
        message = "a job file is a mapping: lines of `key: value`"
        raise JobFileError([*problems, Problem(file, root.line, "", message)])
    return root, problems


def _examine(root: Node) -> list[Problem]:
    problems = check_file(root)
    phases = root.at("phases")
    if phases is None or not isinstance(phases.value, list) or not phases.value:
        problems += _of_job(root, known=problems)
    else:
        # What is missing here may stand in every phase: each is examined as a whole below.
        problems += [p for p in _findings(root) if not _a_phase_may_bring(p)]
        for index, phase in enumerate(phases.value):
            problems += _examine_phase(root, phase, index, known=problems)
    secret_places = {(problem.line, problem.path) for problem in problems}
    problems += [p for p in refused_for_now(root) if (p.line, p.path) not in secret_places]
    return problems


def _examine_phase(root: Node, phase: Node, index: int, *, known: list[Problem]) -> list[Problem]:
    effective = overlay(root, phase)
    told = {(problem.file, problem.line, problem.message) for problem in known}
    prefix = f"phases[{index}]"
    return [
        *(
            replace(problem, path=f"{prefix}.{problem.path}" if problem.path else prefix)
            for problem in _of_job(effective, known=known)
            if (problem.file, problem.line, problem.message) not in told
        ),
        *check_phase(root, effective, index),
    ]


def _of_job(root: Node, *, known: list[Problem]) -> list[Problem]:
    problems = [*check_job(root), *_findings(root)]
    told = [*known, *problems]
    return [*problems, *(p for p in check_train(root) if not any(_same(p, each) for each in told))]


def _same(problem: Problem, told: Problem) -> bool:
    """Whether `told` is about the same key, or about something below it; a phase's has a prefix."""
    below = (f"{problem.path}.", f"{problem.path}[")
    path = told.path.partition("].")[2] if told.path.startswith("phases[") else told.path
    return problem.line == told.line and (path == problem.path or path.startswith(below))


def overlay(root: Node, phase: Node) -> Node:
    """The job that `phase` of `root` is: mappings are merged, all else is replaced."""
    base = {k: node for k, node in _entries(root).items() if k != "phases"}
    over = {k: node for k, node in _entries(phase).items() if k not in (*_PHASE_ONLY, "phases")}
    if "run" in over or "train" in over:
        base = {k: node for k, node in base.items() if k in over or k not in ("run", "train")}
    return _merge(Node(base, root.file, root.line), Node(over, phase.file, phase.line))


def _entries(node: Node) -> dict[str, Node]:
    return node.value if isinstance(node.value, dict) else {}


def _merge(base: Node | None, over: Node) -> Node:
    if base is None or not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = {key: _merge(base.value.get(key), node) for key, node in over.value.items()}
    return Node({**base.value, **merged}, over.file, over.line)


def _a_phase_may_bring(problem: Problem) -> bool:
    return problem.message == MISSING and "[" not in problem.path


def _findings(root: Node) -> list[Problem]:
    try:
        Job.model_validate(_plain(root))
    except ValidationError as error:
        return list(explain(error, root))
    return []


def _plain(root: Node) -> Any:
    plain = root.plain()
    for pattern in AS_TYPED:
        for steps, node in select(root, pattern):
            if isinstance(node.value, int | float):
                _put(plain, steps, node.text)
    return plain


def _put(plain: Any, steps: Steps, text: str) -> None:
    for step in steps[:-1]:
        plain = plain[step]
    plain[steps[-1]] = text
