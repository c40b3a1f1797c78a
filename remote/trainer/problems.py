"""Collecting mistakes, so that a user sees all of them at once and not one a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class TrainError(Exception):
    """What was asked cannot be trained; `problems` names each key, file or row and why."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` when a known name is close to `name`, else nothing."""
    near = get_close_matches(name[:60], list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def is_finite(value: float) -> bool:
    """Also of an integer that no float is as large as."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


class Problems:
    """Readers of a mapping's values that note what is wrong and go on with a default."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, problem: str) -> None:
        self._found.append(problem)

    def extend(self, problems: Iterable[str]) -> None:
        self._found.extend(problems)

    @property
    def found(self) -> tuple[str, ...]:
        return tuple(self._found)

    def raise_if_any(self) -> None:
        if self._found:
            raise TrainError(self._found)

    def unknown(self, record: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
        names = tuple(known)
        for key in record:
            if key not in names:
                self.add(f"{prefix}{key}: unknown key{did_you_mean(str(key), names)}")

    def text(
        self, record: Mapping[str, Any], key: str, prefix: str = "", *, required: bool = False
    ) -> str | None:
        value = record.get(key)
        if isinstance(value, str) and value:
            return value
        if value is not None or required:
            what = "must be a text" if value is not None else "is missing"
            self.add(f"{prefix}{key}: {what}")
        return None

    def texts(
        self, record: Mapping[str, Any], key: str, prefix: str = "", *, required: bool = False
    ) -> tuple[str, ...]:
        value = record.get(key)
        items = [value] if isinstance(value, str) else value
        if items is None or items == []:
            if required:
                self.add(f"{prefix}{key}: is missing")
            return ()
        if not isinstance(items, list | tuple) or not all(isinstance(i, str) and i for i in items):
            self.add(f"{prefix}{key}: must be a text or a list of texts")
            return ()
        return tuple(items)

    def whole(self, record: Mapping[str, Any], key: str, prefix: str = "") -> int | None:
        value = record.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.add(f"{prefix}{key}: must be a whole number of at least 1")
            return None
        return value

    def number(
        self, record: Mapping[str, Any], key: str, prefix: str = "", *, default: float
    ) -> float:
        value = record.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.add(f"{prefix}{key}: must be a number")
            return default
        if not is_finite(value):
            self.add(f"{prefix}{key}: must be a finite number")
            return default
        return value

    def flag(self, record: Mapping[str, Any], key: str, prefix: str = "") -> bool:
        value = record.get(key)
        if value is not None and not isinstance(value, bool):
            self.add(f"{prefix}{key}: must be true or false")
        return value is True

    def mapping(self, record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = record.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.add(f"{key}: must be a mapping")
            return {}
        return value
