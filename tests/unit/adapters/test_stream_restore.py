"""A box that restores what it holds is watched, however long it takes, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kit.agent import Server, SocketLink, write_tree

from orchestrator.adapters.stream import FrameStream, port
from orchestrator.errors import Unreachable


def restore(tmp_path: Path, replies: Iterator[dict[str, Any]]) -> list[int]:
    """What is told of it, of a box that answers so."""
    manifest = write_tree(tmp_path / "box", a=b"1")
    server = Server(
        tmp_path / "box", manifest, tmp_path / "inbox", bend=lambda *_: (next(replies), b"")
    )
    told: list[int] = []
    with closing(FrameStream(lambda: SocketLink(server, 30.0))) as stream:
        stream.restore("checkpoint-10", manifest.digest, "out/checkpoint-10", told.append)
    return told


def test_it_is_asked_after_until_it_is_there(tmp_path: Path) -> None:
    replies = [{"restored_bytes": 0}, {"restored_bytes": 5}, {"digest": "0" * 64}]
    assert restore(tmp_path, iter(replies)) == [0, 5]


def test_one_that_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "RESTORE_PATIENCE_S", 0.05)
    with pytest.raises(Unreachable, match="stands still"):
        restore(tmp_path, iter(lambda: {"restored_bytes": 7}, None))


@pytest.mark.parametrize("count", [-1, "7", None, 1e9, True])
def test_a_number_that_is_none_ends_the_link(tmp_path: Path, count: Any) -> None:
    with pytest.raises(Unreachable):
        restore(tmp_path, iter([{"restored_bytes": count}]))
