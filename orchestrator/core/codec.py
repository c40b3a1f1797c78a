"""Frozen dataclasses to JSON values and back, by their annotations.

The cached fold and the plan are read on every command, so this imports no validation library.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
Decode = Callable[[Any], Any]


def to_json(value: Any) -> Any:
    """`value` as JSON: dataclasses become objects, tuples lists, datetimes ISO text with Z."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    return value


def from_json(kind: type[T], value: Any) -> T:
    """The inverse of `to_json` for an annotated type; a missing field takes its default."""
    return typing.cast(T, _decoder(typing.cast(typing.Hashable, kind))(value))


@cache
def _decoder(kind: Any) -> Decode:
    """What reads a `kind`: annotations are looked at once, runs are read at every step."""
    if is_dataclass(kind):
        return _reads_dataclass(typing.cast(type, kind))
    if kind is datetime:
        return datetime.fromisoformat
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        one = _decoder(next(each for each in arguments if each is not type(None)))
        return lambda value: None if value is None else one(value)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        one = _decoder(arguments[0])
        return lambda value: tuple(map(one, value))
    if origin is tuple:
        each = [_decoder(argument) for argument in arguments]
        return lambda value: tuple(read(item) for read, item in zip(each, value, strict=True))
    if origin in (dict, Mapping):
        one = _decoder(arguments[1])
        return lambda value: {key: one(item) for key, item in value.items()}
    return lambda value: value


def _reads_dataclass(kind: type) -> Decode:
    hints: dict[str, Decode] = {}

    def read(value: Mapping[str, Any]) -> Any:
        if not hints:  # at first use: a type may name itself
            hints.update({key: _decoder(hint) for key, hint in typing.get_type_hints(kind).items()})
        return kind(**{key: hints[key](each) for key, each in value.items() if key in hints})

    return read
