"""The command line of an evaluation: settings first, then the seconds of imports."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from remote.trainer import setup
from remote.trainer.evaluate import settings
from remote.trainer.problems import TrainError

DONE, BAD_SETTINGS = 0, 2


def main(words: Sequence[str]) -> int:
    """Evaluate what EVAL.json says and print it; the exit code. A NO-GO is a result, so 0."""
    parser = argparse.ArgumentParser(prog="python -m remote.trainer evaluate", description=__doc__)
    parser.add_argument("settings", type=Path, metavar="EVAL.json")
    path = parser.parse_args(words).settings
    try:
        asked = settings.load(path)
        if Path(asked.model).is_dir():
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        setup.prepare_libraries()
        return _run(asked)
    except TrainError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return BAD_SETTINGS


def _run(asked: settings.Evaluation) -> int:
    from remote.trainer.evaluate.command import METRICS, describe, evaluate  # torch and all

    print(describe(evaluate(asked)))
    print(f"wrote {asked.output / METRICS}")
    return DONE
