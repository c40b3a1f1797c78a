"""Frozen dataclasses to JSON values and back, by their annotations.

The cached fold and the plan are read on every command, so this imports no validation library.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


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
    return typing.cast(T, _decode(kind, value))


def _decode(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        hints = _hints(typing.cast(type, kind))
        known = {key: _decode(hints[key], each) for key, each in value.items() if key in hints}
        return typing.cast(type, kind)(**known)
    if kind is datetime:
        return datetime.fromisoformat(value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _decode(_only(arguments), value)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_decode(arguments[0], each) for each in value)
    if origin is tuple:
        return tuple(_decode(each, item) for each, item in zip(arguments, value, strict=True))
    if origin in (dict, Mapping):
        return {key: _decode(arguments[1], each) for key, each in value.items()}
    return value


def _only(arguments: tuple[Any, ...]) -> Any:
    return next(each for each in arguments if each is not type(None))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
