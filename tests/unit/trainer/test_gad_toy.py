"""One seed of the toy task, short: the student learns from the discriminator, and not from a
reward that is another answer's. The campaign `gad-toy` has the full length and the medians."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from sim.gad_toy import adversarial, warmup, write_task

from remote.trainer.run import run
from remote.trainer.settings import parse
from remote.trainer.tiny_model import build

pytestmark = pytest.mark.trainer
STEPS = 40


def test_the_reward_is_what_is_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path)
    build(Path("tiny"), [Path("toy.txt")], hidden=48, vocabulary=300)
    _run(warmup(0))
    learned = _run(adversarial("true", 0, STEPS))
    control = _run(adversarial("control", 0, STEPS, shuffle_rewards=True))
    assert learned["eval_agreement"] > control["eval_agreement"] + 0.1
    assert learned["eval_d_acc"] < control["eval_d_acc"] - 0.1


def _run(train: dict[str, Any]) -> dict[str, float]:
    """The last evaluation."""
    assert run(parse(train), resume=None) == 0
    state = json.loads(Path(train["args"]["output_dir"], "trainer_state.json").read_text())
    return dict([record for record in state["log_history"] if "eval_loss" in record][-1])
