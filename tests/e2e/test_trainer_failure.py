"""A rank that fails alone ends the run, and is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import trainer_kit as kit

pytestmark = [pytest.mark.e2e, pytest.mark.trainer]


def test_one_rank_fails_alone(tmp_path: Path) -> None:
    kit.workshop(tmp_path)
    train = kit.settings(tmp_path, "train", full=True, args={"max_steps": 5})
    with kit.started(tmp_path, train, "out", how=("tests.e2e.programs.failing_rank",)) as process:
        kit.wait_for(tmp_path / "out.log", process, text="step 2/5")
        assert process.wait(timeout=25) == 1
    log = (tmp_path / "out.log").read_text()
    assert "rank 1 failed:\nTraceback (most recent call last):" in log
    assert "ValueError: a mistake of rank 1 alone" in log


def test_a_torn_shard_is_told_by_all(tmp_path: Path) -> None:
    """Which only one rank reads."""
    pytest.importorskip("deepspeed")
    kit.workshop(tmp_path)
    args = {"max_steps": 2, "save_steps": 1}
    train = kit.settings(tmp_path, "train", stage=2, full=True, args=args)
    assert kit.run(tmp_path, train, "out") == 0
    (shard,) = (tmp_path / "out" / "checkpoint-1").glob("global_step1/*rank_1*optim_states.pt")
    shard.write_bytes(shard.read_bytes()[:-1000])
    assert kit.run(tmp_path, train, "on", "--resume", "out/checkpoint-1") == 2
    said = [line for line in (tmp_path / "on.log").read_text().splitlines() if "error: " in line]
    assert said == [f"error: resume: {shard.relative_to(tmp_path)} cannot be read: it is torn"]
