"""`python -m remote.trainer.data.worker`: tokenises blocks that its parent hands it.

It ends when its standard input does, so none is left when the parent is killed.
"""

from __future__ import annotations

import os
import pickle
import sys

from remote.trainer.data.encode import Encoder, Part
from remote.trainer.data.files import Block
from remote.trainer.problems import TrainError


def main() -> None:
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    questions = sys.stdin.buffer
    try:
        encoder = Encoder(pickle.load(questions))
        while True:
            answer = _answer(encoder, pickle.load(questions))
            pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        os._exit(0)  # the parent is gone, or needs no more


def _answer(encoder: Encoder, block: Block) -> Part | tuple[str, ...]:
    """What becomes of the block, or the problems that are no row's, such as the template's."""
    try:
        return encoder.block(block)
    except TrainError as error:
        return error.problems


if __name__ == "__main__":
    main()
