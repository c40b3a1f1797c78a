"""Made-up logs in the shape of open-instruct's: metrics glued behind a bar, ranks, DeepSpeed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from orchestrator.core.signatures.console import Console
from orchestrator.core.signatures.lifecycle import Life, follow
from orchestrator.core.signatures.reader import Reader
from orchestrator.core.signatures.samples import Sample, merge

NOISE = 0.18  # of a loss of 1.2: as the loudest of the real ones
TOTAL = 11_688
BEFORE_ONE = """\
1 GPU mode: No DeepSpeed (using 8-bit optimizer)
2026-01-29 20:52:24 - INFO - finetune.py:460 - Distributed environment: DistributedType.NO
Num processes: 1
Process index: 0
Loading checkpoint shards:   0%|          | 0/4 [00:00<?, ?it/s]\r\
Loading checkpoint shards: 100%|##########| 4/4 [00:04<00:00,  1.1s/it]
2026-01-29 20:53:48 - INFO - finetune.py:790 - ***** Running training *****
2026-01-29 20:53:48 - INFO - finetune.py:796 -   Total optimization steps = 11688
"""
BEFORE_TWO = """\
Multi-GPU mode: Using DeepSpeed ZeRO-3
[W130 02:36:25] *****************************************
2026-01-30 02:36:41 - INFO - x.py:460 - Distributed environment: DistributedType.DEEPSPEED  \
Backend: nccl
Num processes: 2
Process index: 1
ds_config: {'bf16': {'enabled': True}, 'zero_optimization': {'stage': 3}}
Map (num_proc=128):  50%|#####     | 500/1000 [00:10<00:10, 48.8 examples/s]
Detected DeepSpeed ZeRO-3: activating zero.init() for this model
Loading checkpoint shards: 100%|##########| 4/4 [00:04<00:00,  1.1s/it]
[2026-01-30 02:39:58,300] [INFO] [utils.py:781] After initializing ZeRO optimizer
2026-01-30 02:40:41 - INFO - finetune.py:790 - ***** Running training *****
2026-01-30 02:40:41 - INFO - finetune.py:796 -   Total optimization steps = 11688
"""


def healthy(step: int) -> float:
    return 1.2 * (1 - 0.25 * (1 - math.exp(-step / 80)))


def preferred(step: int) -> float:
    return math.log(2) * (1 - 0.25 * (1 - math.exp(-step / 100)))


KINDS: dict[str, Callable[[int], float]] = {
    "flat": lambda step: 1.2,
    "rising": lambda step: 1.2 + 0.003 * step,
    "nan": lambda step: math.nan if step >= 120 else healthy(step),
    "exploding": lambda step: 1.2 if step < 90 else 1.2 * 1.2 ** (step - 90),
}


def log_of(
    loss: Callable[[int], float],
    *,
    steps: int = 200,
    seed: int = 0,
    noise: float = NOISE,
    ranks: int = 1,
    before: str = BEFORE_ONE,
) -> bytes:
    """`ranks`: how often each step is printed, as the DPO fork does it."""
    dice, lines = random.Random(seed), []
    for step in range(1, steps + 1):
        value = loss(step) + dice.gauss(0, noise)
        when = f"2026-01-30 {3 + step // 360:02d}:{step // 6 % 60:02d}:{step % 6 * 10:02d}"
        bar = f"  2%|\u258f         | {step}/{TOTAL} [15:00<16:38:07, 10.41s/it]"
        told = f"{when} - INFO - finetune.py:892 -   Step: {step}, LR: {step * 1e-8}, Loss: {value}"
        lines += [f"{bar}{told}, TPS: {2100 + dice.random()}\n\r"] * ranks
    return (before + "".join(lines)).encode()


class Follower:
    """Reads a log in pieces, as it grows."""

    def __init__(self) -> None:
        self._reader, self._console = Reader(), Console()
        self._told: list[Sample] = []
        self.life = Life()

    def feed(self, data: bytes) -> None:
        lines = self._reader.feed(data)
        self.life = follow(self.life, lines)
        self._told += self._console.feed(lines)

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(merge(self._told))


def read(data: bytes) -> Follower:
    found = Follower()
    found.feed(data)
    return found
