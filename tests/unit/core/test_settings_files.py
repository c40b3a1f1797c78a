"""What the settings of a trainer say before it runs."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.settings import (
    Batch,
    batch_of,
    differing,
    eight_bit_key,
    named_in,
    speaks_of_deepspeed,
)

FILES = {"configs/sft.yaml", "run.sh", "ds.json"}


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("python train.py configs/sft.yaml {resume}", ("configs/sft.yaml",)),
        ("config=./configs/sft.yaml\nsh run.sh {gpus} $config", ("configs/sft.yaml", "run.sh")),
        ("train --deepspeed=ds.json --config 'configs/sft.yaml'", ("ds.json", "configs/sft.yaml")),
        ("python train.py other/configs/sft.yaml sft.yaml", ()),
    ],
)
def test_the_files_that_a_command_names(command: str, named: tuple[str, ...]) -> None:
    assert named_in(command, FILES) == named


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("accelerate launch --use_deepspeed train.py", True),
        ("deepspeed: ds.json", True),
        ("  # deepspeed is not for us\ntorchrun train.py", False),
        ("deepspeed: null\n", False),
        ('{"deepspeed": false}', False),
        ("deepspeed: false\nrun: deepspeed train.py", True),
        ("torchrun train.py", False),
    ],
)
def test_whether_deepspeed_is_spoken_of(text: str, told: bool) -> None:
    assert speaks_of_deepspeed(text) is told


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"use_8bit_optimizer": True}, "use_8bit_optimizer"),
        ({"train": {"use_8bit_optimizer": True}}, "train.use_8bit_optimizer"),
        ({"use_8bit_optimizer": False}, ""),
        ({"lr": 1}, ""),
        (None, ""),
    ],
)
def test_an_optimizer_of_eight_bits(tree: Any, key: str) -> None:
    assert eight_bit_key(tree) == key


def of_file(micro: Any, accumulation: Any) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": micro,
        "training": {"gradient_accumulation_steps": accumulation},
    }


@pytest.mark.parametrize(
    ("command", "train", "trees", "batch"),
    [
        ("t", None, {"a.yaml": of_file(2, 8)}, Batch(2, 8)),
        ("t --gradient_accumulation_steps=4", None, {"a.yaml": of_file(2, 8)}, Batch(2, 4)),
        ("t", None, {"a.yaml": of_file(2, 8), "b.yaml": of_file(2, "auto")}, Batch(2, 8)),
        ("t", None, {"a.yaml": of_file(2, 8), "b.yaml": of_file(2, 9)}, None),
        ("t", None, {"a.yaml": of_file(2, True)}, None),
        ("t", None, {"a.yaml": None}, None),
        ("t", {"method": "sft"}, {}, Batch(8, 1)),
        ("t", {"args": {"per_device_train_batch_size": 3}}, {}, Batch(3, 1)),
        ("t", {"args": {"global_batch_size": 128}}, {}, Batch(8, 1, 128)),
    ],
    ids=["file", "command", "auto", "two things", "no number", "no mapping", "own", "own rows",
         "own whole"],
)  # fmt: skip
def test_the_rows_of_a_step(
    command: str, train: Any, trees: dict[str, Any], batch: Batch | None
) -> None:
    assert batch_of(command, train, trees) == batch


def test_the_accumulation_that_makes_two_rungs_equal() -> None:
    assert [Batch(1, 16).rows(gpus) for gpus in (1, 2, 8)] == [16, 32, 128]
    assert Batch(1, 16).accumulation_for(16, 8) == 2
    assert Batch(1, 16).accumulation_for(12, 8) is None
    assert Batch(8, 1, 128).rows(8) == 128


@pytest.mark.parametrize(
    ("before", "now", "keys"),
    [
        ({"lr": 1, "save_steps": 5, "output_dir": "a"}, {"lr": 1, "save_steps": 9}, ()),
        ({"ckpt_dir": "a", "out": "a"}, {"ckpt_dir": "b", "out": "b"}, ()),
        ({"t": {"lr": 1}}, {"t": {"lr": 2}}, ("t.lr",)),
        ({"lr": 1}, {}, ("lr",)),
        ({"max_steps": 500}, {"max_steps": -1}, ("max_steps",)),
        ({"max_steps": 500, "schedule_steps": 9}, {"max_steps": 9, "schedule_steps": 9}, ()),
        ({"max_steps": 5, "lr_scheduler_type": "constant"},
         {"max_steps": 9, "lr_scheduler_type": "constant"}, ()),
        ({"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 4}, ()),
    ],
    ids=["saving", "where to", "nested", "gone", "horizon", "horizon told", "no horizon",
         "rows are M21's"],
)  # fmt: skip
def test_what_differs(before: Any, now: Any, keys: tuple[str, ...]) -> None:
    assert differing(before, now) == keys
