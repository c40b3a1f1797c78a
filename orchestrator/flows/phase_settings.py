"""The settings of each phase as they will lie on its box, and what they say before anything is
rented: of a phase by itself, and of one that goes on from another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.core.plan import PhasePlan
from orchestrator.core.settings import (
    EIGHT_BIT,
    Batch,
    batch_of,
    differing,
    eight_bit_key,
    named_in,
    speaks_of_deepspeed,
)
from orchestrator.errors import BadJobFile

MOST_BYTES = 2**20
_SETTINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Settings:
    """`named` are the settings files that the command names, `trees` also those that the phase
    patches: a script may read them. `text` is the command and all files that it names."""

    named: Mapping[str, Any]
    trees: Mapping[str, Any]
    text: str


def with_settings(phases: Sequence[PhasePlan]) -> list[PhasePlan]:
    """The phases with what their settings say. Raises BadJobFile for a combination that ends with
    an error on the box."""
    read = {phase.name: _settings(phase) for phase in phases}
    known = {phase.name: phase for phase in phases}
    for phase in phases:
        _check_eight_bit(phase, read[phase.name])
    return [
        replace(
            phase,
            batch=_batch(phase, read[phase.name]),
            changed=_changed(phase, known, read),
        )
        for phase in phases
    ]


def _settings(phase: PhasePlan) -> Settings:
    code = next((upload for upload in phase.uploads if upload.what == "code"), None)
    patched = {each.path: each.text for each in phase.patch}
    files = {entry.path for entry in code.tree.files} if code else set()
    named = named_in(phase.command, files)
    texts = {
        name: patched[name] if name in patched or code is None else _text(Path(code.source) / name)
        for name in dict.fromkeys([*named, *patched])
    }
    trees = {name: _tree(name, text) for name, text in texts.items() if name.endswith(_SETTINGS)}
    told = {name: tree for name, tree in trees.items() if name in named}
    return Settings(told, trees, "\n".join([phase.command, *texts.values()]))


def _text(path: Path) -> str:
    """Empty for what cannot be read, or is no settings file by its size."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _tree(name: str, text: str) -> Any:
    try:
        return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        return None


def _check_eight_bit(phase: PhasePlan, settings: Settings) -> None:
    """M14: DeepSpeed cannot shard an optimizer of 8 bits."""
    gpus = max((count for _, count in phase.need.gpus), default=1)
    if gpus < 2 or phase.health.get("recipe") == "off" or not speaks_of_deepspeed(settings.text):
        return
    for name, tree in settings.trees.items():
        key = eight_bit_key(tree)
        if key:
            raise BadJobFile(
                f"patch: {name} has {key}: true, and phase {phase.name} runs DeepSpeed on {gpus} "
                f"GPUs, which does not go with an optimizer of 8 bits; nothing was rented",
                hint=f"`patch: {{{name}: {{{key}: false}}}}` in phase {phase.name}; or, where"
                f" your program does not read {EIGHT_BIT}, `health: {{recipe: off}}` there",
            )


def _batch(phase: PhasePlan, settings: Settings) -> Batch | None:
    told = batch_of(phase.command, phase.train, settings.named)
    return told or batch_of(phase.command, phase.train, settings.trees)


def _changed(
    phase: PhasePlan, known: Mapping[str, PhasePlan], read: Mapping[str, Settings]
) -> tuple[str, ...] | None:
    """S22: what a full run has otherwise than the validation that it goes on from."""
    start = phase.start
    before = known.get(start.phase) if start and start.how == "resume" else None
    if before is None or before.stop_after_steps is None or phase.stop_after_steps is not None:
        return None
    one, other = ({"run": each.command, "train": each.train} for each in (before, phase))
    mine, theirs = (_merged(read[each.name].trees) for each in (phase, before))
    return (*differing(one, other), *differing(theirs, mine))


def _merged(trees: Mapping[str, Any]) -> dict[str, Any]:
    """All keys of all files: the two phases may name their files otherwise."""
    found: dict[str, Any] = {}
    for tree in trees.values():
        found |= tree if isinstance(tree, dict) else {}
    return found
