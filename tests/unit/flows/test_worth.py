"""A checkpoint's numbers come from its folder and from the box's metrics, both of them hostile."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kit.history import BOX, DIGEST, TRAINING, mirrored, run_of, sealed
from sim.world import SimMirror

from orchestrator.core.keep import Keep
from orchestrator.core.metrics import Metric
from orchestrator.core.run import Seal
from orchestrator.flows.upkeep import prune
from orchestrator.flows.worth import MOST_STATE_BYTES, Fetched, measured_late, weighed
from orchestrator.ports import TaskContext

CONTEXT = TaskContext(lambda said: None, lambda: False, lambda undo: None)
HISTORY = {"log_history": [{"step": 20, "loss": 2.0, "eval_loss": 1.5}, {"step": 10, "loss": 3.0}]}


def seal(step: int | None = 20) -> Seal:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Seal("demo-1-1", 1, "checkpoint-20", 1, step, 60, 1, "d" * 64, False, at)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint-20").mkdir()
    return tmp_path / "checkpoint-20"


def weigh(place: Path, folder: Path, step: int | None = 20) -> Fetched:
    def fetch(context: TaskContext, word: str) -> str:
        assert (context, word) == (CONTEXT, "kit")
        return str(place)

    return weighed(CONTEXT, fetch, seal(step), folder, "kit")


def test_both_are_read_and_the_checkpoint_s_own_word_counts(place: Path, tmp_path: Path) -> None:
    (place / "trainer_state.json").write_text(json.dumps(HISTORY))
    (tmp_path / "demo-1-1").mkdir()
    lines = [{"step": 10, "loss": 9.0}, {"step": 20, "loss": 7.0, "tokens_per_s": 100}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "demo-1-1" / "metrics.jsonl").write_text(text)
    assert weigh(place, tmp_path) == Fetched(
        str(place), {"loss": 2.0, "eval_loss": 1.5, "tokens_per_s": 100.0}
    )


def test_what_was_told_after_it_came_is_found(tmp_path: Path) -> None:
    digests = {step: DIGEST[step] for step in (10, 20, 30)}
    run = run_of(*TRAINING, *(told for step in digests for told in (sealed(step), mirrored(step))))
    run = replace(run, metrics={DIGEST[10]: {"eval_loss": 2.0}})
    (tmp_path / BOX).mkdir()
    lines = [{"step": step, "eval_loss": 1.0} for step in (10, 20)]
    odd = [b'{"step": [1], "eval_loss": 3}', b'{"step": 30, "eval_loss": "no"}', b"eval_loss", b""]
    text = b"\n".join([*odd, *(json.dumps(line).encode() for line in lines), b'{"step":20,"x":5}'])
    (tmp_path / BOX / "metrics.jsonl").write_bytes(text)
    late = list(measured_late(run, Metric("eval_loss", "min"), tmp_path))
    assert [(each.seal.step, each.metrics) for each in late] == [(20, {"eval_loss": 1.0, "x": 5.0})]
    assert list(measured_late(run, Metric("accuracy", "max"), tmp_path)) == []


@pytest.mark.parametrize("told", [True, False])
def test_one_is_looked_at_once_more_before_it_goes(tmp_path: Path, told: bool) -> None:
    """Its number came after the last look."""
    run, mirror = run_of(*TRAINING, sealed(20), mirrored(20)), SimMirror()
    mirror.published[DIGEST[20]] = "checkpoint-20"
    (tmp_path / BOX).mkdir()
    line = json.dumps({"step": 20 if told else 10, "eval_loss": 1.0})
    (tmp_path / BOX / "metrics.jsonl").write_text(line)
    keep = Keep(best=Metric("eval_loss", "min"))
    found = prune(CONTEXT, mirror, run, run.seals[0], keep, tmp_path)
    assert found.metrics == ({"eval_loss": 1.0} if told else {})
    assert (DIGEST[20] in mirror.published) is told


def test_without_a_step_nothing_is_read(place: Path, tmp_path: Path) -> None:
    (place / "trainer_state.json").write_text(json.dumps(HISTORY))
    assert weigh(place, tmp_path, step=None).metrics == {}


@pytest.mark.parametrize("what", ["nothing", "link", "pipe", "folder", "torn", "deep", "large"])
def test_a_file_that_is_none_is_no_metric_and_no_wait(
    place: Path, tmp_path: Path, what: str
) -> None:
    path = place / "trainer_state.json"
    match what:
        case "link":
            (tmp_path / "other").write_text(json.dumps(HISTORY))
            path.symlink_to(tmp_path / "other")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "torn":
            path.write_text(json.dumps(HISTORY)[:-1])
        case "deep":
            path.write_text("[" * 200_000)
        case "large":
            with path.open("wb") as file:
                file.truncate(MOST_STATE_BYTES + 1)
    assert weigh(place, tmp_path) == Fetched(str(place), {})
