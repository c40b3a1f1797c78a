"""The questions of a SOCRATES evaluation: what a model is asked, and what the person answered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from remote.trainer.data.files import RowError
from remote.trainer.data.shapes import Message, messages, turns
from remote.trainer.evaluate.distance import answer
from remote.trainer.evaluate.prompts import MAX_PROBLEMS, sources
from remote.trainer.problems import TrainError

Cell = tuple[str, str, str]  # study, condition and task


@dataclass(frozen=True)
class Columns:
    """What the columns are called. The scale's ends may be absent: then they are observed."""

    study: str = "study_id"
    condition: str = "condition_num"
    task: str = "task_num"
    response: str = "response"
    prompt: str = "prompt"
    low: str = "scale_min"
    high: str = "scale_max"


@dataclass(frozen=True)
class Item:
    """One question to one person. `declared`: the scale was given and not observed; `whole`:
    only whole numbers are on it."""

    study: str
    condition: str
    task: str
    prompt: tuple[Message, ...]
    response: float
    low: float
    high: float
    declared: bool
    whole: bool
    source: str

    @property
    def cell(self) -> Cell:
        return self.study, self.condition, self.task


@dataclass(frozen=True)
class Items:
    """Those that are asked, and how many of the file were not since their scale has no length."""

    asked: tuple[Item, ...]
    constant: int
    observed: int


def load(files: Sequence[str], names: Columns, *, most: int | None, seed: int, key: str) -> Items:
    """The items of the files, whole cells of them up to about `most`, drawn by `seed`.

    Scales are observed over all rows, before any are left out. The files are read twice, so that
    only what is asked has to fit into memory. Raises TrainError naming file and row of up to 20
    problems.
    """
    survey = _Survey()
    for item in _items(files, names, key):
        survey.see(item)
    sizes = survey.sizes()
    if not sizes:
        raise TrainError([f"{key}: no question has answers that differ: there is no scale"])
    cells = _drawn(sizes, most, seed)
    there = (survey.scaled(item) for item in _items(files, names, key) if item.cell in cells)
    asked = tuple(item for item in there if item.high > item.low)
    return Items(
        asked,
        constant=survey.rows - sum(sizes.values()),
        observed=sum(not item.declared for item in asked),
    )


@dataclass
class _Scale:
    """What has been said to a question."""

    low: float = math.inf
    high: float = -math.inf
    whole: bool = True

    def see(self, *values: float) -> None:
        self.low, self.high = min(self.low, *values), max(self.high, *values)
        self.whole = self.whole and all(map(float.is_integer, values))


class _Survey:
    """What has to be known of all rows before any can be asked: scales, and cells' sizes.

    A question is a task of a study, under whatever condition; so is its scale.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._scales: dict[tuple[str, str], _Scale] = {}
        self._cells: dict[Cell, None] = {}  # in the order in which they first appear
        self._declared: Counter[Cell] = Counter()
        self._observed: Counter[Cell] = Counter()

    def see(self, item: Item) -> None:
        self.rows += 1
        self._cells[item.cell] = None
        scale = self._scales.setdefault((item.study, item.task), _Scale())
        if not item.declared:
            scale.see(item.response)
            self._observed[item.cell] += 1
            return
        scale.see(item.response, item.low, item.high)
        self._declared[item.cell] += item.high > item.low

    def sizes(self) -> dict[Cell, int]:
        """The items of each cell whose scale has some length, where there are any."""
        sizes = {
            cell: self._declared[cell] + self._with_observed_scale(cell) for cell in self._cells
        }
        return {cell: size for cell, size in sizes.items() if size}

    def scaled(self, item: Item) -> Item:
        scale = self._scales[item.study, item.task]
        if item.declared:
            return replace(item, whole=scale.whole)
        return replace(item, low=scale.low, high=scale.high, whole=scale.whole)

    def _with_observed_scale(self, cell: Cell) -> int:
        study, _, task = cell
        scale = self._scales[study, task]
        return self._observed[cell] if scale.high > scale.low else 0


def _items(files: Sequence[str], names: Columns, key: str) -> Iterator[Item]:
    problems: list[str] = []
    for source, row in sources(files, key, problems):
        try:
            item = _item(row, names, source)
        except RowError as error:
            problems.append(f"{key}: {source}: {error}")
            if len(problems) >= MAX_PROBLEMS:
                break
            continue
        yield item
    if problems:
        raise TrainError(problems[:MAX_PROBLEMS])


def _item(row: Any, names: Columns, source: str) -> Item:
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, Mapping):
        raise RowError("not a mapping of columns to values")
    study, condition, task = (_name(row, key) for key in (names.study, names.condition, names.task))
    response = _number(row, names.response)
    declared = row.get(names.low) is not None and row.get(names.high) is not None
    low, high = (
        (_number(row, names.low), _number(row, names.high)) if declared else (math.nan, math.nan)
    )
    if declared and not low <= response <= high:
        raise RowError(f"`{names.response}` is {response:g}, not between {low:g} and {high:g}")
    return Item(
        study,
        condition,
        task,
        prompt=tuple(_prompt(row, names)),
        response=response,
        low=low,
        high=high,
        declared=declared,
        whole=False,
        source=source,
    )


def _prompt(row: Mapping[str, Any], names: Columns) -> list[Message]:
    if row.get(names.prompt) is not None:
        return turns(row[names.prompt], names.prompt, "user")
    if row.get("messages") is None:
        raise RowError(f"has neither `{names.prompt}` nor `messages`")
    said = messages(row["messages"], "messages")
    asked = said[:-1] if said[-1]["role"] == "assistant" else said
    if not asked:
        raise RowError("`messages` holds no question")
    return asked


def _name(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None or value == "":
        raise RowError(
            f"has no `{key}`: answers are compared within study, condition and task; say the"
            " column's name under socrates.columns"
        )
    return str(value)


def _number(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    if isinstance(value, str):
        value = answer(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RowError(f"`{key}` is {row.get(key)!r}, which is no number")
    return float(value)


def _drawn(sizes: Mapping[Cell, int], most: int | None, seed: int) -> Collection[Cell]:
    """Whole cells, until there are enough items: a part of a cell has another distribution."""
    if most is None or sum(sizes.values()) <= most:
        return sizes.keys()
    cells = list(sizes)
    taken: set[Cell] = set()
    count = 0
    for number in np.random.Generator(np.random.PCG64(seed)).permutation(len(cells)).tolist():
        if taken and count + sizes[cells[number]] > most:
            break  # going on to smaller ones would prefer them
        taken.add(cells[number])
        count += sizes[cells[number]]
    return taken
