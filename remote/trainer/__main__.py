"""`python -m remote.trainer TRAIN.json`: alone, or once a rank under torchrun or deepspeed.

`python -m remote.trainer evaluate EVAL.json` evaluates instead.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from remote.trainer import settings, setup
from remote.trainer.evaluate import main as evaluation
from remote.trainer.problems import TrainError
from remote.trainer.settings import Settings

BAD_SETTINGS = 2
DIVERGED = 1


def main() -> int:
    if sys.argv[1:2] == ["evaluate"]:
        return evaluation.main(sys.argv[2:])
    options = _options()
    resume = options.resume or os.environ.get("GPUJOB_RESUME_FROM") or None
    try:
        train = settings.load(options.train)
        setup.prepare(train)
        return _run(train, Path(resume) if resume else None)
    except TrainError as error:
        if setup.rank() == 0:
            print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return BAD_SETTINGS


def _run(train: Settings, resume: Path | None) -> int:
    from remote.trainer.loop import Diverged  # seconds of imports: once the settings are good
    from remote.trainer.run import run

    try:
        return run(train, resume=resume)
    except Diverged as error:
        if setup.rank() == 0:
            print(f"error: {error}", file=sys.stderr)
        return DIVERGED


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m remote.trainer", description=__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN.json", help="a job file's `train:`")
    parser.add_argument("--resume", metavar="CHECKPOINT", help="wins over GPUJOB_RESUME_FROM")
    # The deepspeed launcher passes it; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
