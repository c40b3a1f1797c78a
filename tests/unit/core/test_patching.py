"""Keys set in the user's own files."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from orchestrator.core.patching import patched
from orchestrator.errors import BadJobFile

SFT = """\
# a comment
model: qwen
use_8bit_optimizer: true
trainer: {lr: 1.0e-05, steps: [1, 2], "a.b": 3}
empty: null
"""


@pytest.mark.parametrize(
    ("changes", "place", "value", "told"),
    [
        ({"use_8bit_optimizer": False}, ("use_8bit_optimizer",), False, "use_8bit_optimizer"),
        ({"trainer.lr": 0.5}, ("trainer", "lr"), 0.5, "trainer.lr"),
        ({"trainer": {"lr": 0.5}}, ("trainer", "lr"), 0.5, "trainer.lr"),
        ({"trainer": {"a.b": 4}}, ("trainer", "a.b"), 4, "trainer.a.b"),
        ({"trainer.steps": [3]}, ("trainer", "steps"), [3], "trainer.steps"),
        ({"empty": {"x": 1}}, ("empty",), {"x": 1}, "empty"),
    ],
    ids=["a key", "dotted", "nested", "a key with a dot", "a list is replaced", "a null"],
)
def test_a_key_is_set_and_the_rest_stays(
    changes: dict[str, Any], place: tuple[str, ...], value: Any, told: str
) -> None:
    text, keys = patched(SFT.encode(), "sft.yaml", changes)
    expected = yaml.safe_load(SFT)
    inner = expected
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    assert yaml.safe_load(text) == expected
    assert keys == (told,)


def test_json_stays_json_in_its_order() -> None:
    text, _ = patched('{"b": 1, "a": {"c": "ü"}}'.encode(), "ds.json", {"a.c": "auto"})
    assert json.loads(text) == {"b": 1, "a": {"c": "auto"}}
    assert text.index('"b"') < text.index('"a"')


@pytest.mark.parametrize(
    ("name", "text", "changes", "says"),
    [
        ("a.yaml", SFT, {"lr": 1}, "a.yaml has no key lr"),
        ("a.yaml", SFT, {"trainer.rate": 1}, "a.yaml has no key trainer.rate"),
        ("a.yaml", SFT, {"trainer": {"rate": 1}}, "a.yaml has no key trainer.rate"),
        ("a.yaml", SFT, {"model.name": 1}, "a.yaml has no key model.name"),
        ("a.yaml", "a: [", {"a": 1}, "a.yaml cannot be read"),
        ("a.json", "{", {"a": 1}, "a.json cannot be read"),
        ("a.json", b'{"a": "\xff"}', {"a": 1}, "a.json cannot be read"),
        ("a.yaml", "- 1\n", {"a": 1}, "a.yaml holds no mapping"),
        ("a.toml", "a = 1", {"a": 1}, "a.toml is neither"),
        ("a.yaml", "a: !!python/object:os.system x", {"a": 1}, "a.yaml cannot be read"),
    ],
)
def test_what_is_not_there_is_named(
    name: str, text: str | bytes, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadJobFile, match="patch: ") as error:
        patched(text if isinstance(text, bytes) else text.encode(), name, changes)
    assert says in error.value.message
