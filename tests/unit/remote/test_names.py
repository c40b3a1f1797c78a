"""What may be a path: hostile names are refused before they reach a disk or a terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote.agent.scan import left_behind, list_tree
from remote.contract import ContractError, check_path


@pytest.mark.parametrize("code", [0, 1, 7, 8, 9, 10, 13, 27, 31, 0x5C, 0x7F, 0x80, 0x9B, 0x9F])
def test_a_path_that_a_terminal_would_act_on_is_refused(code: int) -> None:
    with pytest.raises(ContractError, match="forbidden") as caught:
        check_path(f"weights{chr(code)}[2J")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "path", ["a b", "Gewichte-äöü", "権重/模型.bin", "a~b", os.fsdecode(b"latin-\xe9")]
)
def test_a_name_of_any_language_is_a_path(path: str) -> None:
    assert check_path(path) == path


def test_such_a_file_is_left_behind_and_told_of(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b\x1b]0;title\x07").touch()
    assert set(list_tree(tmp_path)) == {"a"}
    assert list(left_behind(tmp_path)) == ["b\x1b]0;title\x07"]
