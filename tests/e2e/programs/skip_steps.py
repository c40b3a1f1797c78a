"""One rank: for each ZeRO stage, a step whose gradient is not finite between two that are.

Prints a JSON line a stage: what each step said, and whether the weights are those of a twin that
never saw the bad step."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from remote.trainer import setup, zero
from remote.trainer.args import Args
from remote.trainer.engine import make_optimizer, parameter_groups
from remote.trainer.settings import parse

RECORD = {"method": "sft", "model": "m", "data": "d.jsonl", "full": True, "deepspeed": {}}


def main() -> None:
    setup.prepare(parse(RECORD))
    setup.start_ranks(parse(RECORD))
    for stage in (0, 1, 2, 3):
        said, engine = _steps(stage, [1.0, math.inf, 0.3, math.nan])
        _, twin = _steps(stage, [1.0, 0.3])
        same = [torch.equal(engine[name], twin[name]) for name in twin]
        sys.stdout.write(json.dumps({"stage": stage, "said": said, "same": all(same)}) + "\n")


def _steps(stage: int, factors: list[float]) -> tuple[list[Any], dict[str, torch.Tensor]]:
    from remote.trainer.engine_deepspeed import DeepSpeed

    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    config = zero.resolved(
        {"zero_optimization": {"stage": stage}}, Args(), zero.Batch(1, 1, 1), hidden_size=3
    )
    optimizer = make_optimizer(parameter_groups(module, 0.1), Args(), rate=0.1)
    workplace = Path(tempfile.gettempdir()) / "nothing-is-converted"
    engine = DeepSpeed(module, optimizer, config=config, workplace=workplace)
    said = []
    for factor in factors:
        engine.backward((engine.module(torch.ones(1, 3)) * factor).sum(), last=True)
        update = engine.step(0.1)
        said.append([update.skipped, round(update.grad_norm, 4)])
    weights = engine.weights()
    assert weights is not None
    return said, {name: value.clone() for name, value in weights.items()}


if __name__ == "__main__":
    main()
