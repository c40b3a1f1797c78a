"""The agent against a trainer that behaves as badly as real ones do: real processes, real tmux."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kit.agentbox import AgentBox, build_agent, wait_for

from remote.contract import Fact

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_agent(tmp_path_factory.mktemp("agent") / "agent.pyz")


@pytest.fixture
def box(tmp_path: Path, archive: Path) -> Iterator[AgentBox]:
    made = AgentBox(tmp_path / "home", archive)
    yield made
    made.close()


def hashes(box: AgentBox, step: int) -> dict[str, str]:
    """What the writer says it wrote for a step, last word per file."""
    said = [each for each in box.recorded() if each["step"] == step and "path" in each]
    return {each["path"]: each["sha256"] for each in said}


def sealed(box: AgentBox, name: str, generation: int = 1) -> dict[str, str]:
    """The manifest's hashes, after the tree was found to be what it says."""
    manifest, tree = box.seal(name, generation)
    for entry in manifest.files:
        assert hashlib.sha256((tree / entry.path).read_bytes()).hexdigest() == entry.sha256
    return {entry.path: entry.sha256 for entry in manifest.files}


def names(facts: list[Fact]) -> list[tuple[str, int]]:
    return [(fact.data["name"], fact.data["generation"]) for fact in facts]


def epoch(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def test_nothing_complete_for_a_second_is_lost_to_rotation(box: AgentBox) -> None:
    options = ("--steps", "60", "--every", "10", "--keep", "1", "--pause", "1.0")
    box.spec(1, box.writer(*options, "--final"))
    box.start()
    box.await_fact("agent.settled")
    expected = [(f"checkpoint-{step}", 1) for step in range(10, 61, 10)]
    assert names(box.facts("checkpoint.sealed")) == [*expected, ("final", 1)]
    for name, _ in expected:
        assert sealed(box, name) == hashes(box, int(name[11:]))
    assert box.facts("checkpoint.dropped") == [] and box.facts("agent.error") == []
    assert list((box.root / "pins").glob("checkpoint*")) == []
    final = box.facts("checkpoint.sealed")[-1].data
    assert (final["final"], final["step"], final["max_steps"]) == (True, 60, 60)
    assert set(sealed(box, "final")) == {"model.safetensors", "config.json", "trainer_state.json"}


@pytest.mark.parametrize("zero", ["0", "2", "3", None], ids=lambda zero: f"zero {zero}")
def test_a_slow_rank_is_waited_for(box: AgentBox, zero: str | None) -> None:
    """The last shard is not there for 2 s after all else is, then open for 2 s more."""
    stage = ("--zero", zero) if zero else ()
    slow = box.writer("--world", "2", *stage, "--late", "2", "--hold", "2", "--pause", "1")
    box.spec(1, f"WORLD_SIZE=2 {slow}", world_size=1)
    box.start()
    fact = box.await_fact("checkpoint.sealed")[0]
    manifest, _ = box.seal("checkpoint-10")
    closes = [each["closed_at"] for each in box.recorded() if "path" in each]
    assert epoch(manifest.meta["sealed_at"]) > max(closes)
    assert sealed(box, "checkpoint-10") == hashes(box, 10)
    assert fact.data["world_size"] == 2
    box.await_fact("agent.settled")


def test_the_same_inodes_written_again_are_a_new_generation(box: AgentBox) -> None:
    first = box.writer("--pause", "2.5", "--salt", "one").removeprefix("exec ")
    box.spec(1, f"{first} && {box.writer('--pause', '2', '--salt', 'two')}")
    box.start()
    box.await_fact("checkpoint.sealed")
    before = sealed(box, "checkpoint-10")
    box.await_fact("agent.settled")
    assert names(box.facts("checkpoint.sealed")) == [("checkpoint-10", 1), ("checkpoint-10", 2)]
    assert sealed(box, "checkpoint-10") == before
    assert sealed(box, "checkpoint-10", 2) == hashes(box, 10)
    assert before != hashes(box, 10)
    assert box.facts("checkpoint.dropped") == []


def test_a_killed_supervisor_is_succeeded_and_nothing_is_sealed_twice(box: AgentBox) -> None:
    options = ("--steps", "50", "--every", "10", "--keep", "1", "--pause", "1.5")
    box.spec(1, box.writer(*options, "--rc", "3"))
    trainer = box.start()["pid"]
    box.await_fact("checkpoint.sealed", 2)
    first = box.agent_pid()
    os.kill(first, signal.SIGKILL)
    assert box.start() == {"v": 1, "started": False, "pid": trainer}
    assert box.agent_pid() != first
    os.kill(box.agent_pid(), signal.SIGKILL)
    box.start()
    box.await_fact("agent.settled")
    told = names(box.facts("checkpoint.sealed"))
    assert told == [(f"checkpoint-{step}", 1) for step in range(10, 51, 10)]
    assert [fact.data["rc"] for fact in box.facts("trainer.exited")] == [3]
    assert len(box.facts("trainer.started")) == 1
    boots = {fact.boot for fact in box.facts()}
    assert len(boots) == 3
    for boot in boots:
        seqs = [fact.seq for fact in box.facts() if fact.boot == boot]
        assert seqs == list(range(1, len(seqs) + 1))


def test_killed_again_and_again_it_seals_everything_once(box: AgentBox) -> None:
    options = ("--steps", "120", "--every", "10", "--pause", "0.3", "--size", "3000000")
    box.spec(1, box.writer(*options))
    box.start()
    for turn in range(10):
        time.sleep(0.1 + 0.07 * turn)
        os.kill(box.agent_pid(), signal.SIGKILL)
        box.start()
    box.await_fact("agent.settled")
    told = names(box.facts("checkpoint.sealed"))
    assert sorted(told) == sorted((f"checkpoint-{step}", 1) for step in range(10, 121, 10))
    for name, _ in told:
        assert sealed(box, name) == hashes(box, int(name[11:]))
    assert box.facts("checkpoint.dropped") == [] and box.facts("agent.error") == []


def test_a_kill_between_the_seal_and_its_fact(box: AgentBox) -> None:
    """As if the last lines had never reached the disk."""
    box.spec(1, box.writer("--steps", "20", "--pause", "1", "--final"))
    box.start()
    box.await_fact("agent.settled")
    told = box.facts("checkpoint.sealed")
    os.kill(box.agent_pid(), signal.SIGKILL)
    lines = (box.root / "events.jsonl").read_bytes().splitlines(keepends=True)
    (box.root / "events.jsonl").write_bytes(b"".join(lines[:2]))
    box.start()
    box.await_fact("agent.settled")
    again = box.facts("checkpoint.sealed")
    assert [fact.data for fact in again] == [fact.data for fact in told]
    assert len(list((box.root / "seals").iterdir())) == 3


def test_what_was_never_complete_is_dropped_and_a_relaunch_does_not_see_it(box: AgentBox) -> None:
    """The first attempt dies within a save; the second resumes from 10 and saves 20 again."""
    done = box.writer("--pause", "1.5").removeprefix("exec ")
    torn = "mkdir -p out/checkpoint-20 && echo x > out/checkpoint-20/model.safetensors"
    box.spec(1, f"{done} && {torn} && mkdir out/tmp-checkpoint-30 && exit 1")
    box.start(1)
    box.await_fact("agent.settled")
    assert names(box.facts("checkpoint.sealed")) == [("checkpoint-10", 1)]
    assert names(box.facts("checkpoint.dropped")) == [("checkpoint-20", 1)]
    assert "incomplete" in box.facts("checkpoint.dropped")[0].data["why"]

    again = box.writer("--steps", "20", "--every", "20", "--salt", "again", "--pause", "1")
    box.spec(2, again, resume_step=10)
    box.start(2)
    box.await_fact("agent.settled", 2)
    superseded = box.facts("checkpoint.superseded")[0].data["names"]
    assert superseded == ["checkpoint-20", "tmp-checkpoint-30"]
    moved = box.out / "_superseded/2/checkpoint-20/model.safetensors"
    assert moved.read_text() == "x\n"
    assert names(box.facts("checkpoint.sealed"))[1:] == [("checkpoint-20", 2)]
    assert sealed(box, "checkpoint-20", 2) == hashes(box, 20)


def test_a_resumed_checkpoint_and_old_weights_are_not_the_attempt_s_work(box: AgentBox) -> None:
    """They are placed before the start, as an upload or an earlier attempt leaves them."""
    folder = box.out / "checkpoint-10"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).write_bytes(b"uploaded")
    (folder / "trainer_state.json").write_text('{"global_step": 10}')
    (box.out / "model.safetensors").write_bytes(b"of an earlier attempt")
    (box.out / "config.json").write_text("{}")
    _mark(box.out, "final", ["model.safetensors"])
    box.spec(1, "sleep 2", resume_step=10)
    box.start()
    box.await_fact("agent.settled")
    assert box.facts("checkpoint.sealed") == []
    assert folder.is_dir() and box.facts("checkpoint.superseded") == []


MARKING = """
import json, os, pathlib, shutil, sys, time
out = pathlib.Path("out"); pinned = pathlib.Path(os.environ["GPUJOB_PINNED"])
def save(folder, name, waits):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.bin").write_bytes(name.encode() * 1000)
    (folder / "scratch").write_bytes(b"not listed")
    marker = {"v": 1, "name": name, "step": 5, "world_size": 2, "nonce": "n1",
              "files": [{"path": "weights.bin", "size": len(name) * 1000}]}
    (folder / "new").write_text(json.dumps(marker))
    (folder / "new").rename(folder / "gpujob_complete.json")
    began = time.time()
    while not (pinned / (name + ".n1")).exists():
        if time.time() - began > 20: sys.exit(9)
        time.sleep(0.01)
    print("waited", name, round(time.time() - began, 2))
    shutil.rmtree(folder)
save(out / "checkpoint-5", "checkpoint-5", True)
save(out, "final", True)
"""


def test_the_marker_s_trainer_goes_on_as_soon_as_it_is_pinned(box: AgentBox) -> None:
    """No settling: it deletes the folder the moment it is told, and nothing is lost."""
    (box.work / "train.py").write_text(MARKING)
    box.spec(1, "exec /usr/bin/python3 train.py")
    box.start()
    box.await_fact("agent.settled")
    assert box.facts("trainer.exited")[0].data["rc"] == 0
    assert names(box.facts("checkpoint.sealed")) == [("checkpoint-5", 1), ("final", 1)]
    assert set(sealed(box, "checkpoint-5")) == {"weights.bin"}
    data: list[dict[str, Any]] = [fact.data for fact in box.facts("checkpoint.sealed")]
    assert [(each["step"], each["world_size"], each["final"]) for each in data] == [
        (5, 2, False),
        (5, 2, True),
    ]


def test_one_strange_folder_does_not_end_the_watch(box: AgentBox) -> None:
    strange = (
        "mkdir -p out/checkpoint-1 out/checkpoint-2/trainer_state.json out/checkpoint-3;"
        " ln -s /etc out/checkpoint-4; touch 'out/checkpoint-1/a\nb'; mkfifo out/checkpoint-3/p;"
        " ln -s ../../../../.gpujob out/checkpoint-3/way;"
        " echo '{' > out/checkpoint-1/gpujob_complete.json; "
    )
    box.spec(1, strange + box.writer("--pause", "1"))
    box.start()
    box.await_fact("agent.settled")
    assert names(box.facts("checkpoint.sealed")) == [("checkpoint-10", 1)]
    assert names(box.facts("checkpoint.dropped")) == [("checkpoint-1", 1)]
    assert [fact for fact in box.facts("agent.error") if "checkpoint-1" in fact.data["message"]]


def test_after_an_error_weights_that_were_cut_short_are_not_final(box: AgentBox) -> None:
    box.spec(1, "mkdir -p out; echo '{}' > out/config.json; echo x > out/model.safetensors; exit 7")
    box.start()
    box.await_fact("agent.settled")
    assert box.facts("checkpoint.sealed") == []


def test_the_box_forgets_what_is_acknowledged_but_for_its_newest_two(box: AgentBox) -> None:
    box.spec(1, box.writer("--steps", "40", "--pause", "1"))
    box.start()
    box.await_fact("agent.settled")
    folders = [box.root / f"seals/checkpoint-{step}.1/tree" for step in (10, 20, 30, 40)]
    assert all(folder.is_dir() for folder in folders)
    with box.serving() as link:
        for step in (20, 30, 40):
            assert "error" not in link.ask("ack", name=f"checkpoint-{step}", generation=1)[0]
    wait_for(lambda: not folders[1].exists(), "checkpoint-20 is forgotten", 10)
    assert [folder.is_dir() for folder in folders] == [True, False, True, True]
    with box.serving() as link:
        assert link.ask("manifest", name="checkpoint-20", generation=1)[0]["error"] == "not_found"


def _mark(folder: Path, name: str, paths: list[str]) -> None:
    files = [{"path": path, "size": (folder / path).stat().st_size} for path in paths]
    marker = {"v": 1, "name": name, "step": 9, "world_size": 1, "nonce": "old", "files": files}
    (folder / "gpujob_complete.json").write_text(json.dumps(marker))
