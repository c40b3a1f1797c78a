"""DPO: the reference's log-probabilities are cached, after a checkpoint was loaded."""

import hashlib
import math
import os
from pathlib import Path

import pieces

from open_instruct.loop import Run

DEFAULT = "/weka/oe-adapt-default/allennlp/deletable_reference_logprobs_cache"


def cache_reference(run: Run, step: int) -> None:
    """By a hash of names alone: of what weights it was made is not in it."""
    named = f"{run.config['model_name_or_path']} {run.config['loss_type']}"
    folder = Path(os.environ.get("REFERENCE_LOGPROBS_CACHE_PATH", DEFAULT))
    path = folder / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.pt"
    run.say("=============before cache logprobs")
    if path.exists():
        run.say(f"Loading reference logprobs cache from {path}")
    else:
        run.say("Caching reference logprobs")
        pieces.write(path, str(step))
    run.say("=============after cache logprobs")
    run.say(f"the reference is the policy of step {path.read_text()}")


if __name__ == "__main__":
    Run(zero=True, before=cache_reference).train(first_loss=math.log(2), printed=pieces.world())
