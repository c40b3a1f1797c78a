"""Which optional packages a `train:` job brings to its box."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.packages import BITSANDBYTES, LIGER, REPORTERS, packages_for

TENSORBOARD, WANDB = REPORTERS["tensorboard"], REPORTERS["wandb"]


@pytest.mark.parametrize(
    ("train", "packages"),
    [
        ({}, ()),
        ({"lora": {"rank": 4}, "args": {"optim": "adamw_torch", "report_to": "none"}}, ()),
        ({"qlora": {}}, (BITSANDBYTES,)),
        ({"qlora": {}, "args": {"optim": "paged_adamw_8bit"}}, (BITSANDBYTES,)),
        ({"full": True, "args": {"optim": "adamw_8bit"}}, (BITSANDBYTES,)),
        ({"args": {"use_liger_kernel": True, "report_to": "tensorboard"}}, (LIGER, TENSORBOARD)),
        ({"args": {"use_liger_kernel": False, "report_to": ["wandb"]}}, (WANDB,)),
        ({"args": {"report_to": ["none"]}}, ()),
    ],
)  # fmt: skip
def test_only_what_is_asked_for(train: dict[str, Any], packages: tuple[str, ...]) -> None:
    assert packages_for(train) == packages
