"""A checkpoint that is let go disappears at once, and whatever is cut off is done again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from kit.agent import Server, SocketLink, write_tree

from orchestrator.adapters.check import problems
from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.published import held, verify
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.adapters.stream import FrameStream

STAMP = Stamp("demo-1", "0a1b2c3d")
SHARED = b"s" * 40_000


class Killed(BaseException):
    """As by SIGKILL: no handler runs."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    set_stamp(tmp_path / "mirror", STAMP)
    return tmp_path / "mirror"


@pytest.fixture
def mirror(folder: Path) -> FolderMirror:
    return FolderMirror(folder, STAMP.run, STAMP.ledger)


def publish(mirror: FolderMirror, place: Path, step: int) -> str:
    tree = place / f"box-{step}"
    files = {"base": SHARED, "sub__adapter": f"{step}".encode() * 99}
    server = Server(tree, write_tree(tree, **files), place / "inbox")
    name = f"checkpoint-{step}"
    stream = FrameStream(lambda: SocketLink(server, 10.0))
    with mirror.partial(server.manifest) as partial:
        stream.pull(name, 1, partial, server.manifest, lambda _: None)
        stream.close()
        mirror.publish(name, 1, server.manifest)
    return server.manifest.digest


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name != ".gpujob")


def test_it_is_gone_and_what_it_shared_is_not(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    first, second = publish(mirror, tmp_path, 10), publish(mirror, tmp_path, 20)
    mirror.prune(first)
    assert names(folder) == ["checkpoint-20"]
    assert mirror.holds(first) is None
    (left,) = mirror.held()
    assert (left.manifest.digest, verify(left)) == (second, [])
    assert list((folder / ".gpujob" / "trash").iterdir()) == []
    assert [each.name for each in (folder / ".gpujob" / "manifests").iterdir()] == [
        "checkpoint-20.json"
    ]


def test_letting_go_what_is_not_there_is_success(mirror: FolderMirror, folder: Path) -> None:
    mirror.prune("0" * 64)
    assert names(folder) == []


def calls_that_change(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Die before the call numbered `at` that changes the disk; how many there were."""
    count = [0]

    def guard(change: Callable[..., object]) -> Callable[..., object]:
        def guarded(*arguments: object, **words: object) -> object:
            count[0] += 1
            if count[0] == at:
                raise Killed
            return change(*arguments, **words)

        return guarded

    for name in ("rename", "unlink", "rmdir", "fsync", "mkdir"):
        monkeypatch.setattr(os, name, guard(getattr(os, name)))
    return lambda: count[0]


@pytest.mark.parametrize("at", range(1, 14))
def test_killed_anywhere_nothing_half_is_seen_and_the_next_time_does_it(
    folder: Path, tmp_path: Path, at: int
) -> None:
    mirror = FolderMirror(folder, STAMP.run, STAMP.ledger)
    first, second = publish(mirror, tmp_path, 10), publish(mirror, tmp_path, 20)
    with pytest.MonkeyPatch.context() as patched:
        calls_that_change(patched, at)
        with suppress(Killed):
            mirror.prune(first)
    for each in held(folder):
        assert problems(each.path, each.manifest) == [], "half of one is seen"
    assert set(names(folder)) <= {"checkpoint-10", "checkpoint-20"}
    again = FolderMirror(folder, STAMP.run, STAMP.ledger)
    again.prune(first)
    assert names(folder) == ["checkpoint-20"]
    assert again.holds(second)
    assert list((folder / ".gpujob" / "trash").iterdir()) == []
    assert publish(again, tmp_path / "once-more", 10) == first


def test_the_table_above_reaches_the_last_call(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = FolderMirror(folder, STAMP.run, STAMP.ledger)
    first = publish(mirror, tmp_path, 10)
    count = calls_that_change(monkeypatch, 0)
    mirror.prune(first)
    assert 5 < count() < 14
    monkeypatch.undo()
    shutil.rmtree(folder)
