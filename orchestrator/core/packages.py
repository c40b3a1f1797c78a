"""What `train:` needs on the box beyond the trainer's own requirements: only where it is asked for.

flash-attn is not among them: it compiles for an hour where no wheel fits, so `setup` brings it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from remote.trainer.args import EIGHT_BIT

BITSANDBYTES = "bitsandbytes>=0.45"
LIGER = "liger_kernel>=0.5"
REPORTERS = {"tensorboard": "tensorboard>=2.16", "wandb": "wandb>=0.18"}


def packages_for(train: Mapping[str, Any]) -> tuple[str, ...]:
    """Requirement lines, named as they are imported, for the mapping that the trainer reads."""
    return tuple(_packages(train, train.get("args") or {}))


def _packages(train: Mapping[str, Any], args: Mapping[str, Any]) -> Iterator[str]:
    if train.get("qlora") is not None or args.get("optim") in EIGHT_BIT:
        yield BITSANDBYTES
    if args.get("use_liger_kernel"):
        yield LIGER
    asked = args.get("report_to") or ()
    for name in [asked] if isinstance(asked, str) else asked:
        if name in REPORTERS:
            yield REPORTERS[name]
