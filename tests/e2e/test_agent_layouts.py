"""The agent as it runs on a box, with a layout whose pointer decides what is resumed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.agentbox import AgentBox, build_agent

pytestmark = pytest.mark.e2e
TESTS = Path(__file__).parents[1]
TRACKER = "latest_checkpointed_iteration.txt"
TRAIN = f"""
import sys, time, pathlib
sys.path.insert(0, {str(TESTS)!r})
from kit.writers_of_layouts import WRITERS, apply
out = pathlib.Path("out")
last = {{10: None, 20: -2}}
for step, end in last.items():
    for op in WRITERS["verl, critic"](step, 2).ops[:end]:
        apply(out, op)
        time.sleep(0.03)
    time.sleep(1.5)
sys.exit(3)
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[AgentBox]:
    made = AgentBox(tmp_path / "home", build_agent(tmp_path / "agent.pyz"))
    yield made
    made.close()


def test_verl_is_sealed_dropped_and_resumed(box: AgentBox) -> None:
    (box.work / "train.py").write_text(TRAIN)
    box.spec(1, f"exec {sys.executable} train.py", layout="auto", world_size=2)
    box.start()
    box.await_fact("agent.settled")
    (sealed,) = box.facts("checkpoint.sealed")
    assert (sealed.data["name"], sealed.data["step"], sealed.data["world_size"]) == (
        "global_step_10",
        10,
        2,
    )
    (dropped,) = box.facts("checkpoint.dropped")
    assert dropped.data["name"] == "global_step_20" and "data.pt" in dropped.data["why"]
    manifest, tree = box.seal("global_step_10")
    listed = [entry.path for entry in manifest.files]
    assert listed.index("actor/model_world_size_2_rank_0.pt") < listed.index("data.pt")
    assert listed[-1].startswith("critic/optim") and (tree / "data.pt").is_file()

    shutil.rmtree(box.out / "global_step_10")
    (box.out / TRACKER).write_text("20")
    dest = f"gpujob/{box.work.name}/out/global_step_10"
    with box.serving() as link:
        words = {"name": "global_step_10", "digest": manifest.digest, "dest": dest}
        assert link.ask("restore", **words)[0]["digest"] == manifest.digest
    place = {"resume_step": 10, "resume_at": "out/global_step_10", "layout": "auto"}
    box.spec(2, f"exec cat out/{TRACKER} > seen", **place)
    box.start(2)
    box.await_fact("agent.settled", 2)
    assert (box.work / "seen").read_text() == "10"
    assert box.facts("checkpoint.superseded")[0].data["names"] == ["global_step_20"]
    assert len(box.facts("checkpoint.sealed")) == 1 and box.facts("agent.error") == []
