"""Two ranks, of which the second fails alone in its third step, while the first waits for it in a
collective; and as over NCCL, nobody can leave the group while somebody waits."""

from __future__ import annotations

import os
import sys
import time

import torch.distributed as dist

from remote.trainer import launch
from remote.trainer.__main__ import main as train
from remote.trainer.learner import StepResult
from remote.trainer.methods.supervised import Supervised
from remote.trainer.ranks import rank

step = Supervised.step


def main() -> int:
    if "RANK" not in os.environ:
        command = [sys.executable, "-m", "tests.e2e.programs.failing_rank", *sys.argv[1:]]
        return launch.wait(launch.start(2, command))
    Supervised.step = _step  # type: ignore[method-assign]
    dist.destroy_process_group = lambda: time.sleep(600)
    return train()


def _step(self: Supervised, number: int) -> StepResult:
    if rank() == 1 and number == 2:
        raise ValueError("a mistake of rank 1 alone")
    return step(self, number)


if __name__ == "__main__":
    sys.exit(main())
