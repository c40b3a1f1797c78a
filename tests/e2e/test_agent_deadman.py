"""The dead-man switch in the agent that runs: what it ends, in which order, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.agentbox import AgentBox, build_agent, runs, wait_for

pytestmark = pytest.mark.e2e

OVER = {"orphan_s": 1.0, "hours_until": "2025-01-01T00:00:00Z", "stop": None}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_agent(tmp_path_factory.mktemp("agent") / "agent.pyz")


@pytest.fixture
def box(tmp_path: Path, archive: Path) -> Iterator[AgentBox]:
    made = AgentBox(tmp_path / "home", archive)
    yield made
    made.close()


def test_the_trainer_is_ended_and_its_checkpoint_is_sealed(box: AgentBox) -> None:
    box.spec(1, f"{box.writer('--pause', '0').removeprefix('exec ')}; sleep 600", deadman=OVER)
    trainer = box.start()["pid"]
    box.await_fact("agent.settled")
    assert not runs(trainer)
    kinds = [fact.kind for fact in box.facts()]
    assert kinds.index("deadman.fired") < kinds.index("trainer.exited")
    assert kinds.count("deadman.fired") == 1
    assert [fact.data["name"] for fact in box.facts("checkpoint.sealed")] == ["checkpoint-10"]
    assert box.facts("trainer.exited")[0].data["rc"] == 143


def test_an_agent_that_cannot_watch_the_trainer_ends_it_all_the_same(box: AgentBox) -> None:
    """Whatever its own turn raises, here at each look at the attempt, the switch has its turn."""
    box.spec(1, "sleep 600", deadman=OVER)
    (box.root / "pins").write_text("in the way")
    trainer = box.start()["pid"]
    wait_for(lambda: not runs(trainer), "the trainer's end", 30, box._story)
    assert [fact.kind for fact in box.facts()].count("deadman.fired") == 1
    assert "Error" in (box.root / "agent.log").read_text()


def test_a_follower_that_says_something_keeps_it_all_running(box: AgentBox) -> None:
    box.spec(1, "sleep 600", deadman={**OVER, "orphan_s": 3.5})
    follower = box.popen("follow", "--events", "0", "--log", "0", "--metrics", "0")
    assert follower.stdin and follower.stdout
    trainer = box.start()["pid"]
    lines = 0
    while lines < 7:  # one heartbeat a second
        follower.stdin.write(b"\n")
        follower.stdin.flush()
        lines += b"heartbeat" in follower.stdout.readline()
    assert runs(trainer) and box.facts("deadman.fired") == []
    box.await_fact("deadman.fired")  # the channel is open, and nothing comes any more
    wait_for(lambda: not runs(trainer), "the trainer's end")
    follower.kill()
    follower.communicate()
