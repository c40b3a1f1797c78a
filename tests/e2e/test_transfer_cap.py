"""`checkpoints.transfer`, from the job file to a real box: a pause holds bytes in both directions
until its hour is over by the clock that the controller is given."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from kit.agent import write_tree
from kit.boxes import RUN, Rented, end_all, provider_at, rent
from kit.clock import ManualClock

from orchestrator.adapters.check import problems
from orchestrator.adapters.ssh import SshBoxes
from orchestrator.adapters.tree import LocalTrees
from orchestrator.core.bandwidth import Transfer, Window
from orchestrator.core.codec import from_json, to_json
from orchestrator.core.plan import Plan
from orchestrator.core.spec import load_job
from orchestrator.flows.box import Kit
from orchestrator.flows.launch import make_plan
from orchestrator.flows.phase_plan import Shop
from orchestrator.ports import Stream, TaskContext
from remote.contract import Manifest

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parents[2]
SERVES = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from kit.agent import Server, tree_manifest
tree = Path({tree!r})
Server(tree, tree_manifest(tree), Path("inbox")).serve(sys.stdin.buffer, sys.stdout.buffer)
"""
JOB = """
name: capped
resources: {{gpu: cpu:2}}
budget: {{usd: 1}}
run: "true"
checkpoints:
  path: out
  transfer: {{mb_per_s: 40, windows: [{{from: "{begin}", to: "{end}", mb_per_s: 0}}]}}
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def box(tmp_path: Path, clock: ManualClock) -> Iterator[Rented]:
    provider = provider_at(tmp_path / "local")
    try:
        yield rent(provider, SshBoxes(tmp_path / "state", clock=clock))
    finally:
        end_all(provider)


@pytest.fixture
def plan(tmp_path: Path, clock: ManualClock) -> Plan:
    """Paused from an hour ago until an hour from now, in this machine's time."""
    now, hour = clock.now().astimezone(), timedelta(hours=1)
    folder = tmp_path / "job"
    folder.mkdir()
    begin, end = f"{now - hour:%H:%M}", f"{now + hour:%H:%M}"
    (folder / "job.yaml").write_text(JOB.format(begin=begin, end=end))
    provider = provider_at(tmp_path / "shop")
    shop = Shop(LocalTrees(), {"local": provider}, lambda mirror: None, lambda mirror, run: None)
    made = make_plan(load_job(folder / "job.yaml"), shop)
    assert made.phases[0].checkpoints.transfer == Transfer(40, (Window(begin, end, 0),))
    return from_json(Plan, to_json(made))


def kit(plan: Plan, box: Rented, folder: Path) -> Kit:
    return Kit(
        run=RUN,
        plan=plan,
        boxes=box.boxes,
        endpoint=box.endpoint,
        world_size=1,
        folder=folder,
        mirror=None,  # type: ignore[arg-type]  # no transfer looks at it
        agent=b"",
        library=(folder, Manifest(())),
    )


class Moves:
    """One transfer in a thread, and what it says."""

    def __init__(self) -> None:
        self.said: list[tuple[int, bool]] = []
        self.waits = threading.Event()

    def told(self, moved: int) -> None:
        self.said.append((int(moved), getattr(moved, "is_paused", False)))
        if len(self.said) > 3:
            self.waits.set()


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_pause_of_the_job_file_holds_until_its_hour_is_over(
    box: Rented, plan: Plan, clock: ManualClock, tmp_path: Path, way: str
) -> None:
    tree, into = tmp_path / "tree", tmp_path / "into"
    manifest = write_tree(tree, weights=os.urandom(3_000_000), config=b"{}")
    body = SERVES.format(path=[str(HERE), str(HERE / "tests")], tree=str(tree))
    shell = box.boxes.shell(box.endpoint, RUN)
    shell.put(body.encode(), f".gpujob/{RUN}/agent.pyz")
    shell.close()
    closers: list[object] = []
    context = TaskContext(lambda _: None, lambda: False, closers.append)
    stream: Stream = kit(plan, box, tmp_path).stream(context)
    moves = Moves()

    def move() -> None:
        if way == "up":
            stream.push(tree, manifest, "work", "merge", moves.told)
        else:
            stream.pull("checkpoint-10", 1, into, manifest, moves.told)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        assert moves.waits.wait(30)
        assert set(moves.said) == {(0, True)}
        clock.advance(2 * 3600)
        thread.join(30)
    finally:
        stream.close()
        thread.join()
    assert closers, "a cancelled task could not end it"
    assert moves.said[-1] == (manifest.size_bytes, False)
    where = box.folder / "home" / "inbox" / "work" if way == "up" else into
    assert problems(where, manifest) == []
