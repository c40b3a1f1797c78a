"""The agent has seals pushed by a program: one at a time, again after failures, told once. The
program is played by shell scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote.agent.deadman import only_here
from remote.agent.facts import Facts, read
from remote.agent.paths import Root
from remote.agent.pusher import FIRST_WAIT_S, LOOK_S, MAX_WAIT_S, Pusher

URI = "s3://bucket/prefix/run/checkpoint-10.aaaa"


class Box:
    """A root, time by hand, and the program that pushes as a script of `/bin/sh`."""

    def __init__(self, path: Path) -> None:
        self.root = Root(path)
        path.mkdir()
        self.now_s = 0.0
        self.has_room = True
        self.facts = Facts(self.root.events, "i1")
        self.pusher = self.begin()

    def begin(self) -> Pusher:
        return Pusher(
            self.root, self.facts, clock=lambda: self.now_s, has_room=lambda folder: self.has_room
        )

    def program(self, script: str) -> None:
        path = self.root.path / "program"
        path.write_text(f"#!/bin/sh\necho run >> runs\n{script}\n")
        path.chmod(0o755)
        self.root.push.write_text(json.dumps({"v": 1, "python": str(path)}))

    def fails(self, message: str) -> None:
        self.program(f"""echo '{{"v": 1, "message": "{message}"}}' > push.failed; exit 1""")

    def seal(self, name: str = "checkpoint-10", *, told: bool = True, acked: bool = False) -> Path:
        folder = self.root.seals / f"{name}.1"
        (folder / "tree").mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        if acked:
            (folder / "acked").touch()
        if told:
            self.facts.tell("checkpoint.sealed", name=name, generation=1)
        return folder

    def pushes(self, name: str = "checkpoint-10") -> str:
        """The script that pushes this one."""
        record = {"name": name, "generation": 1, "digest": "aa", "uri": URI}
        return f"echo '{json.dumps(record)}' > seals/{name}.1/pushed"

    def turn(self, seconds: float = LOOK_S) -> None:
        """Let time pass and the program end."""
        self.now_s += seconds
        self.pusher.step()
        self._await(lambda: self.pusher._child is None or self.pusher._child.poll() is not None)
        self.now_s += LOOK_S
        self.pusher.step()

    def runs(self) -> int:
        path = self.root.path / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [fact.data for fact in read(self.root.events) if fact.kind == kind]

    def _await(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path / "root")
    yield made
    made.pusher.close()


def test_nothing_is_pushed_unless_it_is_asked_for(box: Box) -> None:
    box.seal()
    box.turn()
    assert box.pusher.pulse() is None
    assert list(read(box.root.events))[-1].kind == "checkpoint.sealed"


def test_a_seal_is_pushed_and_told_of_once(box: Box) -> None:
    box.seal()
    box.program(box.pushes())
    assert box.pusher.pulse() == {"waiting": 1, "sent": 0}
    for _ in range(3):
        box.turn()
    assert box.runs() == 1
    told = {"name": "checkpoint-10", "generation": 1, "digest": "aa", "uri": URI}
    assert box.told("checkpoint.pushed") == [told]
    assert box.pusher.pulse() == {"waiting": 0, "sent": 0}
    box.pusher = box.begin()
    box.turn()
    assert box.told("checkpoint.pushed") == [told]


def test_a_push_is_told_of_after_its_seal(box: Box) -> None:
    box.seal(told=False)
    box.program(box.pushes())
    box.turn()
    box.turn()
    assert box.told("checkpoint.pushed") == []
    box.facts.tell("checkpoint.sealed", name="checkpoint-10", generation=1)
    box.turn()
    assert len(box.told("checkpoint.pushed")) == 1


def test_what_fails_is_told_once_and_tried_again_later_and_later(box: Box) -> None:
    box.seal()
    box.fails("there is no bucket x")
    waits, wait_s = [], FIRST_WAIT_S
    for _ in range(9):
        box.turn()
        before = box.runs()
        box.turn(wait_s - 3 * LOOK_S)
        assert box.runs() == before
        waits.append(wait_s)
        box.now_s += 2 * LOOK_S
        wait_s = min(2 * wait_s, MAX_WAIT_S)
    assert waits[-1] == MAX_WAIT_S
    assert box.told("push.failed") == [{"message": "there is no bucket x"}]


def test_another_trouble_is_told_and_so_is_the_same_after_a_success(box: Box) -> None:
    box.seal("checkpoint-10")
    for message in ("one", "two"):
        box.fails(message)
        box.turn(MAX_WAIT_S)
    box.program(box.pushes("checkpoint-10"))
    box.turn(MAX_WAIT_S)
    box.seal("checkpoint-20")
    box.fails("two")
    box.turn(MAX_WAIT_S)
    assert [each["message"] for each in box.told("push.failed")] == ["one", "two", "two"]


@pytest.mark.parametrize(
    ("script", "message"),
    [("exit 3", "ended with 3"), ("kill -9 $$", "ended with -9")],
    ids=["exit", "killed"],
)
def test_a_program_that_dies_without_a_word_is_told(box: Box, script: str, message: str) -> None:
    box.seal()
    box.program(script)
    box.turn()
    assert [each["message"] for each in box.told("push.failed")] == [
        f"the program that pushes {message}"
    ]


def test_a_program_that_is_not_there_is_told(box: Box) -> None:
    box.seal()
    box.root.push.write_text('{"v": 1, "python": "/no/such/python"}')
    box.turn()
    assert "did not start" in box.told("push.failed")[0]["message"]


def test_another_one_at_it_is_no_trouble(box: Box) -> None:
    box.seal()
    box.program("exit 75")
    box.turn()
    box.turn()
    assert box.told("push.failed") == []
    assert box.runs() >= 2


def test_one_at_a_time_and_none_outlives_the_agent(box: Box) -> None:
    box.seal()
    box.program("exec sleep 600")
    for _ in range(5):
        box.now_s += LOOK_S
        box.pusher.step()
    child = box.pusher._child
    assert child and child.poll() is None
    box.pusher.close()
    assert child.poll() is not None
    assert box.runs() <= 1


def test_a_full_disk_gives_up_what_the_controller_holds_and_nothing_else(box: Box) -> None:
    held, only = box.seal("checkpoint-10", acked=True), box.seal("checkpoint-20")
    box.fails("away")
    box.has_room = False
    box.turn()
    box.turn()
    assert (held / "unpushed").exists() and not (only / "unpushed").exists()
    assert box.told("push.gave_up")[0]["name"] == "checkpoint-10"
    assert only_here(box.root) == ["checkpoint-20.1"]


def test_what_went_for_want_of_room_is_told_once_there_is_some(box: Box) -> None:
    """On a full disk it goes before anybody can write down that it is given up."""
    gone, unheard = box.seal("checkpoint-10", acked=True), box.seal("checkpoint-20", told=False)
    for folder in (gone, unheard):
        (folder / "tree").rmdir()
    (unheard / "unpushed").write_text('{"v": 1, "why": "unreadable"}')
    box.fails("away")
    box.turn()
    assert [each["name"] for each in box.told("push.gave_up")] == ["checkpoint-10"]
    assert box.runs() == 0, "there is nothing to push"


def test_what_is_in_s3_holds_up_no_stop_of_the_box(box: Box) -> None:
    folder = box.seal()
    assert only_here(box.root) == ["checkpoint-10.1"]
    (folder / "pushed").touch()
    assert only_here(box.root) == []
