"""What a program registers with accelerate is written last, by rank 0 alone: only an earlier
checkpoint of the attempt tells how much that is."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.agent.attempt import Attempt
from remote.agent.facts import Facts, read
from remote.agent.keeper import Keeper
from remote.agent.layouts import Context, Tree
from remote.agent.layouts.folders import accelerate
from remote.agent.paths import Root
from remote.agent.spec import Spec

STATE = ("pytorch_model.bin", "optimizer.bin", "random_states_0.pkl", "random_states_1.pkl")
CUSTOM = "custom_checkpoint_0.pkl"


@pytest.mark.parametrize(
    ("files", "usual", "missing", "doubtful"),
    [
        pytest.param(STATE, None, None, True, id="the first checkpoint is doubtful"),
        pytest.param(STATE, frozenset(STATE), None, False, id="nothing was registered before"),
        pytest.param(STATE, frozenset((*STATE, CUSTOM)), CUSTOM, False, id="not there yet"),
        pytest.param((*STATE, CUSTOM), frozenset((*STATE, CUSTOM)), None, False, id="there"),
        pytest.param((*STATE, CUSTOM), frozenset(STATE), None, False, id="one more than before"),
    ],
)
def test_the_rule(
    files: tuple[str, ...], usual: frozenset[str] | None, missing: str | None, doubtful: bool
) -> None:
    tree = Tree(dict.fromkeys(files, 10), lambda path: io.BytesIO(b"0123456789"))
    verdict = accelerate("checkpoint_3", tree, Context(world_size=2, usual=usual))
    assert (verdict.missing, verdict.doubtful) == (missing, doubtful)


class Watch:
    """A keeper whose clock is ours: each look is 0.3 s after the one before."""

    def __init__(self, home: Path) -> None:
        self._root, self.out, self._now = Root(home / "root"), home / "work/out", 1000.0
        attempt = Attempt(self._root, 1)
        attempt.folder.mkdir(parents=True)
        self.out.mkdir(parents=True)
        text = {"env": {}, "command": "true", "workdir": str(home / "work"), "checkpoints": "out"}
        spec = {"v": 1, "instance": "i1", "attempt": 1, "secrets": False, "path": None, **text}
        spec |= {"layout": "accelerate", "world_size": 2, "resume_step": None}
        (attempt.folder / "spec.json").write_text(json.dumps(spec))
        facts = Facts(self._root.events, "i1")
        spec_read = Spec.read(self._root, 1)
        self.keeper = Keeper(self._root, facts, attempt, spec_read, clock=lambda: self._now)

    def look(self, times: int) -> None:
        for _ in range(times):
            self._now += 0.3
            self.keeper.step(ended=False)
            time.sleep(0.01)  # a seal is made in a thread

    def await_sealed(self, *names: str) -> None:
        deadline = time.monotonic() + 20
        while self.sealed != list(names):
            assert time.monotonic() < deadline, self.sealed
            self.look(1)

    def save(self, step: int, *names: str) -> None:
        for name in names:
            path = self.out / f"checkpoint_{step}" / name
            path.parent.mkdir(exist_ok=True)
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", f"{step} {name}")

    @property
    def sealed(self) -> list[str]:
        facts = read(self._root.events)
        return [fact.data["name"] for fact in facts if fact.kind == "checkpoint.sealed"]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    watch = Watch(tmp_path)
    yield watch
    watch.keeper.close()


def test_the_keeper_remembers_what_was_registered(watch: Watch) -> None:
    watch.save(1, *STATE)
    watch.look(10)
    assert watch.sealed == [], "the first one has to lie still for longer"
    watch.save(1, CUSTOM)
    watch.await_sealed("checkpoint_1")
    watch.save(2, *STATE)
    watch.look(100)
    assert watch.sealed == ["checkpoint_1"], "half a minute without what the first one had"
    watch.save(2, CUSTOM)
    watch.await_sealed("checkpoint_1", "checkpoint_2")
