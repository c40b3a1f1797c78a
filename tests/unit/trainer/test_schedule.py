"""The learning rate of each update, against transformers' own schedulers."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from remote.trainer.args import SCHEDULES, Args
from remote.trainer.batching import warmup_steps
from remote.trainer.schedule import SHAPES, Schedule

pytestmark = pytest.mark.trainer
STEPS, PEAK = 40, 2e-3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear", {}),
        ("cosine", {}),
        ("cosine", {"num_cycles": 1.5}),
        ("cosine_with_min_lr", {"min_lr": 2e-4}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.2}),
        ("polynomial", {"power": 2.0}),
        ("constant", {}),
        ("constant_with_warmup", {}),
        ("inverse_sqrt", {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("warmup", [0, 7], ids=["cold", "warm"])
def test_is_transformers(name: str, options: dict[str, float], warmup: int) -> None:
    ours = Schedule(name, PEAK, warmup, STEPS, options)
    theirs = _theirs(name, options, warmup)
    assert [ours.rate(step) for step in range(STEPS)] == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def _theirs(name: str, options: dict[str, Any], warmup: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = transformers.get_scheduler(
        name, optimizer, warmup, STEPS, scheduler_specific_kwargs=dict(options)
    )
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_every_name_has_a_shape() -> None:
    assert set(SHAPES) == set(SCHEDULES)


def test_past_the_horizon_it_stays_down() -> None:
    schedule = Schedule("cosine", PEAK, 0, 10)
    assert [schedule.rate(step) for step in (10, 11, 500)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (Args(warmup_steps=30), 30),
        (Args(warmup_steps=0.1), 100),
        (Args(warmup_ratio=0.0301), 31),
        (Args(), 0),
    ],
    ids=["steps", "share", "ratio", "none"],
)
def test_warmup(args: Args, expected: int) -> None:
    assert warmup_steps(args, 1000) == expected
