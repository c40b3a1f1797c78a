"""The arithmetic of the global batch: held when the number of GPUs changes."""

from __future__ import annotations

import math

from remote.trainer.args import Args
from remote.trainer.problems import TrainError
from remote.trainer.zero import Batch


def plan(args: Args, ranks: int, *, held: int | None = None) -> Batch:
    """Split the global batch over `ranks`.

    `held` is the global batch of the checkpoint that is resumed: it stays, and accumulation
    follows; so does the micro batch where it no longer divides. Raises TrainError when the ranks
    do not divide the batch.
    """
    micro = args.per_device_train_batch_size
    asked = args.global_batch_size
    if asked is None and held is None:
        return Batch(micro, args.gradient_accumulation_steps, ranks)
    if asked is not None and held is not None and asked != held:
        raise TrainError(
            [
                f"args.global_batch_size: is {asked}, and the checkpoint was trained with {held}"
                " sequences a step; the data order depends on it, so it has to stay"
            ]
        )
    total = held if held is not None else asked
    assert total is not None
    if total % ranks:
        raise TrainError([_indivisible(total, ranks)])
    share = total // ranks
    micro = max(size for size in range(1, min(micro, share) + 1) if share % size == 0)
    return Batch(micro, share // micro, ranks)


def describe(batch: Batch, max_length: int) -> str:
    """The effective batch as a person would work it out on paper."""
    total = batch.micro * batch.accumulation * batch.ranks
    return (
        f"batch: {batch.ranks} ranks x {batch.micro} sequences x {batch.accumulation} accumulation"
        f" = {total} sequences a step (at most {total * max_length:,} tokens)"
    )


def total_steps(args: Args, items: int, batch: int) -> int:
    """`max_steps`, else as many as the epochs take; the last one is filled from the next epoch."""
    if args.max_steps > 0:
        return args.max_steps
    return max(1, math.ceil(args.num_train_epochs * items / batch))


def warmup_steps(args: Args, horizon: int) -> int:
    """`warmup_steps` below 1 is a share of the steps, as it is for transformers."""
    share = args.warmup_ratio or (args.warmup_steps if args.warmup_steps < 1 else 0.0)
    return math.ceil(horizon * share) if share else int(args.warmup_steps)


def _indivisible(total: int, ranks: int) -> str:
    good = [str(number) for number in range(1, total + 1) if total % number == 0]
    near = [number for number in good if int(number) <= 2 * ranks]
    return (
        f"args.global_batch_size: {total} sequences a step cannot be shared by {ranks} GPUs"
        f" equally; use {', '.join(near)} GPUs, or another global batch"
    )
