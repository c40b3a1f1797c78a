"""The completeness marker: what it lists, when it goes, and how long the pin is waited for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote.contract import MARKER
from remote.trainer.marker import Pins, mark, unmark_after


@dataclass
class Time:
    """A clock that moves when it is slept on, and runs `then` at given moments."""

    now: float = 0.0
    then: dict[float, Path] = field(default_factory=dict)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at, path in self.then.items():
            if self.now >= at:
                path.touch()


def _checkpoint(root: Path, name: str) -> Path:
    folder = root / name
    (folder / "global_step3").mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}")
    (folder / "global_step3" / "shard.pt").write_bytes(b"12345")
    return folder


def test_lists_every_file_but_itself(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, "checkpoint-3")
    first = mark(folder, "checkpoint-3", step=3, world_size=2)
    second = mark(folder, "checkpoint-3", step=3, world_size=2)
    record = json.loads((folder / MARKER).read_text())
    assert record == {
        "v": 1,
        "name": "checkpoint-3",
        "step": 3,
        "world_size": 2,
        "nonce": second,
        "files": [
            {"path": "global_step3/shard.pt", "size": 5},
            {"path": "trainer_state.json", "size": 2},
        ],
    }
    assert first != second
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [MARKER, "global_step3", "trainer_state.json"]
    )


def test_final_lists_files_of_the_root_alone(tmp_path: Path) -> None:
    _checkpoint(tmp_path, "checkpoint-3")
    (tmp_path / "adapter.safetensors").write_bytes(b"123")
    (tmp_path / "link").symlink_to("adapter.safetensors")
    mark(tmp_path, "final", step=3, world_size=1, subfolders=False)
    files = json.loads((tmp_path / MARKER).read_text())["files"]
    assert files == [{"path": "adapter.safetensors", "size": 3}]


def test_markers_of_what_is_written_again_go(tmp_path: Path) -> None:
    for name in ("checkpoint-10", "checkpoint-20", "checkpoint-30", "checkpoint-x"):
        mark(_checkpoint(tmp_path, name), name, step=1, world_size=1)
    mark(tmp_path, "final", step=30, world_size=1, subfolders=False)
    unmark_after(tmp_path, 10)
    assert sorted(path.parent.name for path in tmp_path.rglob(MARKER)) == [
        "checkpoint-10",
        "checkpoint-x",
    ]


@pytest.mark.parametrize(
    ("pinned_at", "pinned", "waited_s"),
    [(0.0, True, 0.1), (30.0, True, 30.1), (61.0, False, 60.1), (None, False, 60.1)],
    ids=["at-once", "later", "too-late", "never"],
)
def test_waits_for_the_pin(
    tmp_path: Path, pinned_at: float | None, pinned: bool, waited_s: float
) -> None:
    then = {} if pinned_at is None else {pinned_at: tmp_path / "checkpoint-3.abc"}
    time = Time(then=then)
    pins = Pins(tmp_path, clock=time.clock, sleep=time.sleep)
    (tmp_path / "checkpoint-3.other").touch()
    assert pins.wait("checkpoint-3", "abc") is pinned
    assert time.now == pytest.approx(waited_s, abs=0.11)


def test_waits_for_nobody_without_an_agent() -> None:
    time = Time()
    assert Pins(None, clock=time.clock, sleep=time.sleep).wait("checkpoint-3", "abc")
    assert time.now == 0
