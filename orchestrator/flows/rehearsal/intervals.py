"""How often the user's settings save, how many they keep, and whether that can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.core.rehearsal import edits
from orchestrator.core.rehearsal.report import Mistake
from orchestrator.core.spec import Job
from orchestrator.flows.rehearsal.code import Code

_BEST = "load_best_model_at_end"


def found_in_intervals(job: Job, code: Code) -> Iterator[Mistake]:
    """A rehearsal makes all intervals small, and so would not see these when it runs."""
    args = {"train.args": job.train.args} if job.train else {}
    said = {"run": edits.settings_in(job.run or ""), **args}
    for place, tree in {**code.settings, **said}.items():
        yield from _retention(place, tree)
        if _can_resume(job):
            yield from _never_saves(place, tree)
        yield from _best_without_evaluation(place, tree, code)


def _retention(place: str, tree: Any) -> Iterator[Mistake]:
    for key, value in edits.named(tree, edits.LIMIT):
        if value == 1 and not isinstance(value, bool):
            yield Mistake(
                _key(place, key, 3),
                f"{key} is 1 in {_file(place)}: a save that breaks off leaves the box without any",
                f"set {key} to 2 or more",
            )


def _never_saves(place: str, tree: Any) -> Iterator[Mistake]:
    last = min(_counts(tree, edits.STEPS).values(), default=None)
    if last is None:
        return
    for key, value in _counts(tree, edits.SAVES).items():
        if value > last:
            yield Mistake(
                _key(place, key, max(1, last // 5)),
                f"{key} is {value} in {_file(place)}, and it ends at step {last}: until then"
                " nothing is saved, and a lost box costs all of it",
                f"set {key} below {last}",
            )


def _best_without_evaluation(place: str, tree: Any, code: Code) -> Iterator[Mistake]:
    """The Trainer refuses it at its start: the best of what was saved has to be known."""
    saves, evals = _counts(tree, {"save_steps"}), _counts(tree, {"eval_steps"})
    if not saves or not evals or not _asks_for_best(tree, code):
        return
    (key, save), every = next(iter(saves.items())), next(iter(evals.values()))
    if save % every:
        yield Mistake(
            _key(place, key, every),
            f"{key} is {save} in {_file(place)} and eval_steps {every}: with {_BEST} the trainer"
            " refuses a save that no evaluation comes with",
            f"set {key} to a multiple of {every}",
        )


def _asks_for_best(tree: Any, code: Code) -> bool:
    told = [value for _, value in edits.named(tree, frozenset({_BEST}))]
    if told:
        return told[0] in (True, "true", "True")
    return any(f"{_BEST}=True" in text for text in code.texts.values())


def _counts(tree: Any, names: frozenset[str] | set[str]) -> dict[str, int]:
    found = edits.named(tree, frozenset(names))
    return {key: value for key, value in found if edits.is_count(value)}


def _can_resume(job: Job) -> bool:
    resume = job.checkpoints.resume
    return bool(resume.args or resume.env or resume.place or job.train)


def _key(place: str, key: str, value: int) -> str:
    """Where the job file says it, or can say it."""
    if place == "run":
        return "run"
    if place == "train.args":
        return f"train.args.{key}"
    return f"patch: {{{place}: {{{key}: {value}}}}}"


def _file(place: str) -> str:
    return "the command" if place == "run" else place
