"""The oracle: the writer's record of what was whole and when, held against what was sealed."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

MUST_KEEP_S = 1.0
LIVES_S = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
Files = dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Save:
    """What a writer's ranks had written when all of them were done. Paths are relative to the
    folder of checkpoints; `deleted_at` is when its deletion began, None when it stayed."""

    number: int
    name: str
    files: Files
    complete_at: float
    deleted_at: float | None

    @property
    def tree(self) -> Files:
        """As a seal lists them: what is in the checkpoint's own folder by its path in there."""
        return {path.removeprefix(self.name + "/"): each for path, each in self.files.items()}

    @property
    def lived_s(self) -> float:
        return inf if self.deleted_at is None else self.deleted_at - self.complete_at


@dataclass(frozen=True)
class Sealed:
    """What the agent (or the mirror) says that a checkpoint is; `found` is what lies there now,
    None when it let go of the bytes."""

    name: str
    generation: int
    told: Files
    found: Files | None
    sealed_at: float
    final: bool = False


@dataclass
class Judgement:
    """`violations` are promises broken; `lives` counts (saves, missed) by how long they lived."""

    violations: list[str] = field(default_factory=list)
    lives: dict[float, list[int]] = field(
        default_factory=lambda: {least: [0, 0] for least in LIVES_S}
    )
    waits_s: list[float] = field(default_factory=list)


def read_record(path: Path) -> tuple[list[Save], int]:
    """The saves that a writer's record tells of, and how many of them were made late."""
    words = [json.loads(line) for line in path.read_text().splitlines()]
    deleted: dict[str, list[float]] = {}
    for word in words:
        if "deleting" in word:
            deleted.setdefault(word["deleting"], []).append(word["at"])
    saves = [_save(word, deleted) for word in words if "save" in word]
    return saves, sum("late" in word for word in words)


def judge(saves: Iterable[Save], seals: Iterable[Sealed]) -> Judgement:
    told = Judgement()
    by_files = {_key(save.name, save.tree): save for save in saves}
    kept: set[int] = set()
    last = max(by_files.values(), key=lambda save: save.number, default=None)
    for seal in seals:
        save = by_files.get(_key(seal.name, seal.told))
        if seal.final:
            told.violations += _not_last(seal, last)
        elif save is None:
            told.violations.append(_early(seal, by_files.values()))
        elif save.number in kept:
            told.violations.append(f"{seal.name}.{seal.generation} was sealed twice")
        else:
            kept.add(save.number)
            told.waits_s.append(seal.sealed_at - save.complete_at)
        if seal.found is not None and seal.found != seal.told:
            told.violations.append(
                f"{seal.name}.{seal.generation} is torn: {_between(seal.found, seal.told)}"
            )
    for save in by_files.values():
        _count(told, save, missed=save.number not in kept)
    return told


def _not_last(seal: Sealed, last: Save | None) -> list[str]:
    """Where no weights are left besides the checkpoints, the last of these is the final one."""
    tree = {} if last is None else last.tree
    return [] if seal.told == tree else [f"final is not the last save: {_between(seal.told, tree)}"]


def _count(told: Judgement, save: Save, *, missed: bool) -> None:
    bucket = told.lives[LIVES_S[bisect_right(LIVES_S, save.lived_s) - 1]]
    bucket[0] += 1
    bucket[1] += missed
    if missed and save.lived_s >= MUST_KEEP_S:
        told.violations.append(f"save {save.number} lived {save.lived_s:.2f} s and was missed")


def _save(word: Mapping[str, Any], deleted: Mapping[str, list[float]]) -> Save:
    files = {path: (int(size), str(digest)) for path, (size, digest) in word["files"].items()}
    name, complete_at = str(word["name"]), float(word["complete_at"])
    gone = [at for at in deleted.get(name, []) if at >= complete_at]
    return Save(word["save"], name, files, complete_at, min(gone, default=None))


def _early(seal: Sealed, saves: Iterable[Save]) -> str:
    """What differs from the save that it is likest to."""
    likest = min(saves, key=lambda save: len(save.tree.items() ^ seal.told.items()), default=None)
    against = "nothing was saved" if likest is None else _between(seal.told, likest.tree)
    number = "" if likest is None else f" (save {likest.number})"
    return f"{seal.name}.{seal.generation}{number} was sealed and never saved so: {against}"


def _between(mine: Files, theirs: Files) -> str:
    lacks, has = sorted(set(theirs) - set(mine)), sorted(set(mine) - set(theirs))
    other = sorted(path for path in set(mine) & set(theirs) if mine[path] != theirs[path])
    return f"lacks {lacks[:4]}, has besides {has[:4]}, differs in {other[:4]}"


def _key(name: str, tree: Files) -> tuple[str, frozenset[tuple[str, tuple[int, str]]]]:
    return name, frozenset(tree.items())
