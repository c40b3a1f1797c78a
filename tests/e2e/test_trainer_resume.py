"""30 steps straight equal 15 and, after a SIGKILL, 15 more: to the byte, on two ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

import torch
import trainer_kit as kit

# Under `make test` test_resume.py does this through all of gpujob, with the trainer's own launcher.
pytestmark = [pytest.mark.trainer, pytest.mark.long]
EXACT = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "scheduler.pt",
    "rng_state_0.pth",
    "rng_state_1.pth",
    "global_step30/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "global_step30/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "global_step30/mp_rank_00_model_states.pt",
)


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    kit.workshop(tmp_path)
    lora = {"r": 4, "alpha": 8, "dropout": 0.2}
    # 64 examples are 16 steps an epoch: the resume is within one and passes into the next.
    train = kit.settings(
        tmp_path, "train", stage=2, lora=lora, args={"max_steps": 30, "save_steps": 15}
    )
    assert kit.run(tmp_path, train, "straight") == 0
    straight, broken = tmp_path / "straight", tmp_path / "broken"

    # Nobody pins, so the trainer waits behind the marker, and the kill falls after step 15.
    (tmp_path / "pinned").mkdir()
    pins = {"GPUJOB_PINNED": "pinned"}
    with kit.started(tmp_path, train, "broken", how=kit.TORCHRUN, **pins) as process:
        kit.wait_for(broken / "checkpoint-15" / kit.MARKER, process)
        kit.kill(process)
    assert [line["step"] for line in kit.metrics(tmp_path, "broken")] == list(range(1, 16))
    assert kit.run(tmp_path, train, "broken", "--resume", "broken/checkpoint-15") == 0

    again = kit.metrics(tmp_path, "broken")[15:]
    first = kit.metrics(tmp_path, "straight")[15:]
    assert [line["step"] for line in again] == list(range(16, 31))
    for key in ("loss", "grad_norm", "learning_rate"):
        assert [line[key] for line in again] == [line[key] for line in first]
    for name in EXACT:
        one, other = (folder / "checkpoint-30" / name for folder in (straight, broken))
        assert one.read_bytes() == other.read_bytes(), name
    name = "adapter_model.safetensors"
    assert (straight / name).read_bytes() == (broken / name).read_bytes()
    _check_that_ranks_differ(straight / "checkpoint-30")


def _check_that_ranks_differ(checkpoint: Path) -> None:
    """Equal shards of nothing would pass: the optimizer moved, and each rank has its own part."""
    shards = [
        torch.load(
            checkpoint / f"global_step30/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt",
            weights_only=False,
        )["optimizer_state_dict"]["base_optimizer_state"]["state"][0]["exp_avg"]
        for rank in (0, 1)
    ]
    assert all(shard.abs().sum() > 0 for shard in shards)
    assert not torch.equal(*shards)
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert state["global_step"] == 30
