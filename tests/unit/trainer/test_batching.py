"""The global batch: what is asked for is what is trained with, on any number of GPUs."""

from __future__ import annotations

import pytest

from remote.trainer.args import Args
from remote.trainer.batching import describe, plan, total_steps
from remote.trainer.problems import TrainError
from remote.trainer.zero import Batch


@pytest.mark.parametrize(
    ("micro", "accumulation", "total", "held", "ranks", "expected"),
    [
        (2, 4, None, None, 2, Batch(2, 4, 2)),
        (2, 4, None, 16, 2, Batch(2, 4, 2)),
        (2, 4, None, 16, 1, Batch(2, 8, 1)),
        (2, 4, None, 16, 4, Batch(2, 2, 4)),
        (4, 1, None, 8, 4, Batch(2, 1, 4)),
        (4, 1, 24, None, 4, Batch(3, 2, 4)),
        (16, 1, 128, None, 8, Batch(16, 1, 8)),
        (8, 1, 4, None, 1, Batch(4, 1, 1)),
    ],
    ids=["asked", "same", "fewer", "more", "smaller-micro", "odd", "issue", "small"],
)
def test_plan(
    micro: int, accumulation: int, total: int | None, held: int | None, ranks: int, expected: Batch
) -> None:
    args = Args(
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        global_batch_size=total,
    )
    assert plan(args, ranks, held=held) == expected


def test_ranks_that_do_not_divide_the_batch() -> None:
    with pytest.raises(TrainError) as caught:
        plan(Args(global_batch_size=16), 3)
    assert caught.value.problems[0] == (
        "args.global_batch_size: 16 sequences a step cannot be shared by 3 GPUs equally; use"
        " 1, 2, 4 GPUs, or another global batch"
    )


def test_another_batch_than_the_checkpoints() -> None:
    with pytest.raises(TrainError, match="is 8, and the checkpoint was trained with 16"):
        plan(Args(global_batch_size=8), 2, held=16)


def test_says_it_as_on_paper() -> None:
    assert describe(Batch(2, 4, 8), 1000) == (
        "batch: 8 ranks x 2 sequences x 4 accumulation = 64 sequences a step"
        " (at most 64,000 tokens)"
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [(Args(max_steps=7), 7), (Args(num_train_epochs=1), 16), (Args(num_train_epochs=2.5), 40)],
    ids=["steps", "epoch", "epochs"],
)
def test_steps(args: Args, expected: int) -> None:
    assert total_steps(args, 63, 4) == expected
