"""What pydantic found, in the user's words, at the user's line, with the key they meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.core.spec.job import Job
from orchestrator.core.spec.problems import MISSING, Problem, Steps, dotted
from orchestrator.core.spec.tokens import holds_token, show
from orchestrator.core.spec.yamltree import Node
from remote.trainer.args import Args

# What people type because another tool calls it so. A dotted answer stands elsewhere.
ALIASES = {
    **{name: f"train.args.{name}" for name in Args.__dataclass_fields__},
    "accelerators": "resources.gpu",
    "batch_size": "train.args.per_device_train_batch_size",
    "chat_template": "template",
    "cmd": "run",
    "command": "run",
    "container": "resources.image",
    "cpus": "resources.vcpus",
    "dataset": "data",
    "datasets": "data",
    "dest": "to",
    "destination": "to",
    "disk_size": "resources.disk_gb",
    "docker_image": "resources.image",
    "environment": "env",
    "envs": "env",
    "file_mounts": "data",
    "gpus": "resources.gpu",
    "install": "setup",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lr": "train.args.learning_rate",
    "max_hours": "budget.hours",
    "max_length": "max_seq_length",
    "max_seq_len": "max_seq_length",
    "max_usd": "budget.usd",
    "memory": "resources.ram_gb",
    "num_nodes": "resources.nodes",
    "output_dir": "checkpoints.path",
    "pip": "setup",
    "r": "rank",
    "retries": "recovery.crash",
    "script": "run",
    "source": "from",
    "src": "from",
    "steps": "train.args.max_steps",
    "timeout": "budget.hours",
    "workdir": "code.path",
}
_WORDS = {
    "missing": MISSING,
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_type": "must be text; put it in quotes",
    "string_unicode": "is not valid text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "too_short": "must not be empty",
}
_BOUNDS = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
}


def explain(error: ValidationError, root: Node) -> Iterator[Problem]:
    """Each finding as a problem at the line of the nearest key in `root`; a key that is missing
    because it was misspelt is reported once."""
    findings = [(found, *_locate(root, found)) for found in error.errors(include_url=False)]
    meant = {
        (*steps[:-1], _meant_key(steps))
        for found, steps, _ in findings
        if found["type"] == "extra_forbidden"
    }
    for found, steps, node in findings:
        if found["type"] != "missing" or steps not in meant:
            yield Problem(node.file, node.line, _path(steps), _message(found, steps))


def _locate(root: Node, found: ErrorDetails) -> tuple[Steps, Node]:
    """Pydantic's location without what stands in no file: tags of unions, marks of keys."""
    steps: Steps = ()
    node = root
    for step in found["loc"]:
        child = node.child(step)
        if child is not None:
            steps, node = (*steps, step), child
    if found["type"] == "missing":
        return (*steps, found["loc"][-1]), node
    return steps, node


def _path(steps: Steps) -> str:
    if any(isinstance(step, str) and holds_token(step) for step in steps):
        return "(hidden)"
    return dotted(steps)


def _message(found: ErrorDetails, steps: Steps) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key" + _did_you_mean(_meant_key(steps))
    if kind == "literal_error":
        return f"must be {context['expected']}{_meant_word(found['input'], context['expected'])}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    return _WORDS.get(kind, found["msg"])


def _meant_key(steps: Steps) -> str | None:
    typed = str(steps[-1])
    known = _keys_at(steps[:-1])
    misplaced = _alias_here(typed, known) or _elsewhere(typed)
    return misplaced or _closest(typed, known) or ALIASES.get(typed)


def _alias_here(typed: str, known: list[str]) -> str | None:
    last = ALIASES.get(typed, "").rpartition(".")[2]
    return last if last in known else None


def _meant_word(typed: Any, expected: str) -> str:
    words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    if not isinstance(typed, str) or holds_token(typed):
        return ""
    meant = _closest(typed, words)
    return f", not {show(typed)}" + _did_you_mean(meant)


def _did_you_mean(meant: str | None) -> str:
    return f"; did you mean {meant}?" if meant else ""


def _closest(typed: str, known: list[str]) -> str | None:
    found = difflib.get_close_matches(typed[:60].lower().replace("-", "_"), known, n=1)
    return found[0] if found else None


def _elsewhere(typed: str) -> str | None:
    """A key that is right, in the wrong place: where it belongs, if that is one place."""
    places = [
        f"{name}.{typed}"
        for name, field in Job.model_fields.items()
        if name != "phases" and (model := _model_in(field.annotation)) and typed in _keys(model)
    ]
    if typed in Job.model_fields:
        return f"{typed}, at the top of the file"
    return places[0] if len(places) == 1 else None


def _keys_at(steps: Steps) -> list[str]:
    model: type[BaseModel] | None = Job
    for step in steps:
        if isinstance(step, str) and model is not None:
            model = next((_model_in(a) for key, a in _annotations(model) if key == step), None)
    return _keys(model) if model else []


def _keys(model: type[BaseModel]) -> list[str]:
    return [key for key, _ in _annotations(model)]


def _annotations(model: type[BaseModel]) -> list[tuple[str, Any]]:
    return [(field.alias or name, field.annotation) for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model within Optional, tuple, union or Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
