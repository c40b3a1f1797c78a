"""`python -m sim.saves_table` prints the tables of docs/guarantees.md from campaigns/*.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIVES = ("0.0", "0.1", "0.2", "0.3", "0.5", "1.0")
HEADS = ("< 0.1 s", "0.1 to 0.2", "0.2 to 0.3", "0.3 to 0.5", "0.5 to 1", "≥ 1 s")


def saves_table(runs: list[dict[str, Any]]) -> str:
    """Missed of saved, by how long the checkpoint lived complete."""
    rows = [_row(run["library"], run, run["saves_and_missed_by_life_s"]) for run in runs]
    lives = {life: _sum(run["saves_and_missed_by_life_s"][life] for run in runs) for life in LIVES}
    keys = ("saves", "late", "sealed", "mirrored")
    total = _row("all", {key: sum(run[key] for run in runs) for key in keys}, lives)
    share = ["share missed", "", "", "", "", *map(_share, lives.values())]
    head = ["writer", "saves", "late", "sealed", "fetched", *HEADS]
    lines = [head, ["---"] * len(head), *rows, total, share]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def read_runs(name: str) -> list[dict[str, Any]]:
    record = json.loads((ROOT / "campaigns" / f"{name}.json").read_text())
    return list(record["runs"])


def _row(name: str, run: dict[str, Any], lives: dict[str, list[int]]) -> list[str]:
    counts = [str(run[key]) for key in ("saves", "late", "sealed", "mirrored")]
    return [name, *counts, *(f"{lives[life][1]} of {lives[life][0]}" for life in LIVES)]


def _sum(pairs: Iterable[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*pairs, strict=True)]


def _share(pair: list[int]) -> str:
    saves, missed = pair
    return f"{100 * missed / saves:.1f} %" if saves else ""


if __name__ == "__main__":
    print(saves_table(read_runs("real-saves")))
