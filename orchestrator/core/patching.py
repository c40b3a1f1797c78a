"""Keys set in a YAML or JSON file of the user's: the file as a phase gets it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from orchestrator.errors import BadJobFile


def patched(data: bytes, name: str, changes: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What the file `name`, which holds `data`, is with `changes` in it, and the dotted keys that
    were set.

    A key is dotted or nested. One that is not in the file is an error: it would be a new setting
    that nobody reads. Comments of a YAML file are lost. Raises BadJobFile."""
    is_json = name.endswith(".json")
    if not is_json and not name.endswith((".yaml", ".yml")):
        raise _refused(name, "is neither a .yaml, .yml nor .json file")
    tree = _parse(data, name, is_json=is_json)
    keys = tuple(_set_all(tree, changes, name, ()))
    if is_json:
        return json.dumps(tree, indent=2, ensure_ascii=False) + "\n", keys
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), keys


def _parse(data: bytes, name: str, *, is_json: bool) -> dict[str, Any]:
    try:
        text = data.decode()
        tree = json.loads(text) if is_json else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise _refused(name, f"cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise _refused(name, "holds no mapping of keys")
    return tree


def _set_all(
    tree: dict[str, Any], changes: Mapping[str, Any], name: str, above: tuple[str, ...]
) -> Iterator[str]:
    for key, value in changes.items():
        place, last = _find(tree, key, name, above)
        path = (*above, *([key] if place is tree and last == key else key.split(".")))
        if isinstance(value, Mapping) and isinstance(place[last], dict):
            yield from _set_all(place[last], value, name, path)
        else:
            place[last] = value
            yield ".".join(path)


def _find(
    tree: dict[str, Any], key: str, name: str, above: tuple[str, ...]
) -> tuple[dict[str, Any], str]:
    """The mapping that holds the key and its name there; one that is written with dots wins."""
    if key in tree:
        return tree, key
    *way, last = key.split(".")
    place: Any = tree
    for step in way:
        place = place.get(step) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        raise _refused(name, f"has no key {'.'.join((*above, key))}")
    return place, last


def _refused(name: str, what: str) -> BadJobFile:
    return BadJobFile(
        f"patch: {name} {what}; nothing was rented",
        hint="correct `patch: {file: {key: value}}` in the job file, or the file itself",
    )
