"""`python -m remote.trainer TRAIN.json`: alone, or once a rank under torchrun or deepspeed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from remote.trainer import settings, setup
from remote.trainer.problems import TrainError

BAD_SETTINGS = 2


def main() -> int:
    options = _options()
    resume = options.resume or os.environ.get("GPUJOB_RESUME_FROM") or None
    try:
        train = settings.load(options.train)
        setup.prepare(train)
        from remote.trainer.run import run  # seconds of imports: only once the settings are good

        return run(train, resume=Path(resume) if resume else None)
    except TrainError as error:
        if setup.rank() == 0:
            print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return BAD_SETTINGS


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m remote.trainer", description=__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN.json", help="a job file's `train:`")
    parser.add_argument("--resume", metavar="CHECKPOINT", help="wins over GPUJOB_RESUME_FROM")
    # The deepspeed launcher passes it; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
