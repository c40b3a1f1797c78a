"""Who the daemon is, as others read it; and that a daemon never leaves a run behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.clock import ManualClock

from orchestrator.daemon import IDLE_S, serve
from orchestrator.daemon_lock import hold_lock, read_words
from orchestrator.holder import Holder


def test_words_are_there_while_the_lock_is_held(tmp_path: Path) -> None:
    assert read_words(tmp_path) is None
    with hold_lock(tmp_path, "1") as lock:
        words = read_words(tmp_path)
        assert lock and words
        assert (words.version, words.holder) == ("1", Holder.current())
        with hold_lock(tmp_path, "1") as second:
            assert second is None
        lock.hush()
        assert read_words(tmp_path) is None
    assert read_words(tmp_path) is None


def test_the_words_of_a_dead_daemon_count_for_nothing(tmp_path: Path) -> None:
    record = {"v": 1, "boot": Holder.current().boot, "pid": 2**22 + 1, "started": 1, "version": "1"}
    (tmp_path / "daemon.lock").write_text(json.dumps(record))
    assert read_words(tmp_path) is None
    (tmp_path / "daemon.lock").write_text("{torn")
    assert read_words(tmp_path) is None


class LateLedger:
    """A run is recorded in the very moment in which the daemon has decided to leave."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.heard_late = False
        self.looks_without_words = 0

    def active(self) -> list[str]:
        if read_words(self._state) is None:
            self.looks_without_words += 1
            if self.looks_without_words == 1:
                return ["demo-1"]
        return []


class Quiet:
    """As much of a world as an idle daemon touches."""

    def __init__(self, state: Path) -> None:
        self.ledger = LateLedger(state)
        self.clock = ManualClock()


def test_a_run_recorded_while_the_daemon_leaves_is_not_left_behind(tmp_path: Path) -> None:
    world: Any = Quiet(tmp_path)
    turns = 0

    def count() -> bool:
        nonlocal turns
        turns += 1
        return False

    with hold_lock(tmp_path, "1") as lock:
        assert lock
        serve(world, lock, until_idle=True, stop=count)
    assert world.ledger.looks_without_words == 2, "it looked, stayed, and left later"
    assert turns > IDLE_S / 0.25
