"""DeepSpeed's file: the traps in it are told, the rest is filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remote.trainer.args import Args
from remote.trainer.problems import TrainError
from remote.trainer.zero import Batch, check_total, leftover_autos, problems, resolved

FILES = sorted((Path(__file__).parents[3] / "jobs" / "deepspeed").glob("*.json"))
ARGS = Args(learning_rate=1e-5)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (
            {"optimizer": {"type": "Lamb"}},
            "deepspeed.optimizer: Lamb would replace the optimizer",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 3e-4}}},
            "deepspeed.optimizer.params.lr: is 0.0003, args says 1e-05; set args.learning_rate",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"betas": [0.9, 0.95]}}},
            "deepspeed.optimizer.params.betas: is [0.9, 0.95]",
        ),
        (
            {"scheduler": {"type": "WarmupDecayLR"}},
            "deepspeed.scheduler: would override args.lr_scheduler_type",
        ),
        ({"nebula": {}}, "deepspeed.nebula: writes checkpoints later"),
        ({"checkpoint": {"writer": {"type": "FAST"}}}, "deepspeed.checkpoint.writer"),
        ({"bf16": {"enabled": True}}, "deepspeed.bf16.enabled: is True and args.bf16 is False"),
        ({"gradient_clipping": 0.3}, "deepspeed.gradient_clipping: is 0.3"),
        ({"zero_optimization": {"stage": 4}}, "deepspeed.zero_optimization.stage: must be 0 to 3"),
        (
            {"train_micro_batch_size_per_gpu": 4},
            "deepspeed.train_micro_batch_size_per_gpu: is 4;"
            " args.per_device_train_batch_size is 8; say one thing",
        ),
        (
            {"gradient_accumulation_steps": 16},
            "deepspeed.gradient_accumulation_steps: is 16; args.gradient_accumulation_steps is 1",
        ),
        ({"amp": {"enabled": True}}, "deepspeed.amp: not supported; say args.bf16"),
        ({"curriculum_learning": {"enabled": True}}, "deepspeed.curriculum_learning: not supp"),
        ({"data_efficiency": {"enabled": True}}, "deepspeed.data_efficiency: not supported"),
        ({"tensor_parallel": {"autotp_size": 2}}, "deepspeed.tensor_parallel: not supported"),
        (
            {"checkpoint": {"load_universal": True}},
            "deepspeed.checkpoint.load_universal: not supported; a resume",
        ),
    ],
    ids=[
        *("lamb", "lr", "betas", "scheduler", "nebula", "writer", "bf16", "clipping", "stage"),
        *("micro", "accumulation", "amp", "curriculum", "efficiency", "tensors", "universal"),
    ],
)
def test_names_the_trap(config: dict[str, Any], problem: str) -> None:
    (said,) = problems(config, ARGS)
    assert said.startswith(problem)


def test_an_optimizer_that_says_the_same_is_fine() -> None:
    same = {"lr": "auto", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
    assert list(problems({"optimizer": {"type": "AdamW", "params": same}}, ARGS)) == []


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (
            {"train_batch_size": 32},
            "deepspeed.train_batch_size: is 32; args.global_batch_size is 64",
        ),
        (
            {"gradient_accumulation_steps": 2},
            "deepspeed.gradient_accumulation_steps: is 2; args.global_batch_size says it; take it",
        ),
    ],
    ids=["total", "accumulation"],
)
def test_the_global_batch_is_said_by_args(config: dict[str, Any], problem: str) -> None:
    (said,) = problems(config, Args(global_batch_size=64))
    assert said.startswith(problem)


def test_what_says_the_same_or_is_off_is_fine() -> None:
    same = {
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 1,
        "train_batch_size": 64,
        "amp": {"enabled": False},
        "curriculum_learning": {"enabled": False},
        "tensor_parallel": None,
        "gradient_clipping": None,
        "checkpoint": {"load_universal": False},
    }
    assert list(problems(same, ARGS)) == []


def test_a_total_that_is_not_the_ranks() -> None:
    check_total({"train_batch_size": 64}, Batch(4, 8, 2))
    check_total({"train_batch_size": "auto"}, Batch(4, 8, 2))
    with pytest.raises(TrainError, match=r"train_batch_size: is 64; 2 ranks x 1 .* x 1 .* are 2;"):
        check_total({"train_batch_size": 64}, Batch(1, 1, 2))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_own_files_are_whole(path: Path) -> None:
    config = json.loads(path.read_text())
    assert list(problems(config, ARGS)) == []
    done = resolved(config, Args(max_grad_norm=0.2), Batch(2, 4, 8), hidden_size=64)
    assert list(leftover_autos(done)) == []
    assert done["train_batch_size"] == 64
    assert (done["gradient_clipping"], done["bf16"]["enabled"]) == (0.2, False)
    assert config["train_batch_size"] == "auto", "the file's own mapping was changed"


def test_autos_of_zero_3_follow_the_model() -> None:
    given = {
        "zero_optimization": {
            "stage": 3,
            "reduce_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
        },
        "aio": {"block_size": "auto"},
    }
    done = resolved(given, ARGS, Batch(1, 1, 1), hidden_size=64)
    assert done["zero_optimization"]["reduce_bucket_size"] == 4096
    assert done["zero_optimization"]["stage3_param_persistence_threshold"] == 640
    assert list(leftover_autos(done)) == ["deepspeed.aio.block_size"]


@pytest.mark.parametrize(("stage", "casts"), [(0, False), (1, True), (2, True), (3, True)])
def test_bfloat16_without_masters_is_left_to_autocast(stage: int, casts: bool) -> None:
    given = {"zero_optimization": {"stage": stage}}
    done = resolved(given, Args(bf16=True), Batch(1, 1, 1), hidden_size=64)
    assert done["bf16"]["enabled"] is casts
