"""The tables of `config.toml`: every key known, every value of its kind, all that is wrong told
at once."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import BadJobFile

Kinds = Mapping[str, Mapping[str, str]]


def read_config(path: Path, tables: Kinds) -> dict[str, dict[str, Any]]:
    """The file's tables by name, an absent one empty. Raises BadJobFile with every problem."""
    found = _read(path)
    problems = list(_problems(found, tables))
    if problems:
        raise BadJobFile(
            f"{path}: " + "; ".join(problems),
            hint="docs/providers.md lists what can be set",
        )
    return {name: {**found.get(name, {})} for name in tables}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadJobFile(f"{path} cannot be read: {error}", hint="correct or remove it") from error


def _problems(found: Mapping[str, Any], tables: Kinds) -> Iterator[str]:
    for name, table in found.items():
        if name not in tables:
            yield f"there is no table [{name}]{_meant(name, tables)}"
        elif not isinstance(table, Mapping):
            yield f"{name} has to be a table, [{name}]"
        else:
            yield from _wrong_keys(name, table, tables[name])


def _wrong_keys(name: str, table: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[str]:
    for key, value in table.items():
        if key not in kinds:
            yield f"[{name}] has no key {key}{_meant(key, kinds)}"
            continue
        fits, words = _KINDS[kinds[key]]
        if not fits(value):
            yield f"[{name}] {key} has to be {words}, and is {value!r}"


def _meant(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there is {', '.join(known)}"


def _is_amount(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value))


def _is_address(value: Any) -> bool:
    """Keys and checkpoints travel in the open to nobody but this machine itself."""
    if not isinstance(value, str) or not re.fullmatch(r"https?://[!-~]+", value):
        return False
    near = re.match(r"http://(127\.0\.0\.1|localhost|\[::1\])(:|/|$)", value)
    return value.startswith("https://") or near is not None


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9-]{1,64}", value))


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "switch": (lambda value: isinstance(value, bool), "true or false"),
    "amount": (_is_amount, "a number, 0 or more"),
    "pause": (_is_amount, "a number of seconds, 0 or more"),
    "seconds": (lambda value: _is_amount(value) and value > 0, "a number of seconds, more than 0"),
    "count": (lambda value: type(value) is int and value > 0, "a whole number, 1 or more"),
    "address": (_is_address, "an https:// address"),
    "place": (_is_place, "a region's name"),
    "name": (_is_name, "a user's name"),
}
