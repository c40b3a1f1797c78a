"""Which files of a checkpoint a person means: all, the weights, or a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from orchestrator.errors import NotFound

# What only a resume needs: optimizer, scheduler, random state, the trainer's own books.
_STATE = re.compile(
    r"(^|/)(optim|optimizer|scheduler|scaler|sampler|dl_|dataloader|rng_state|random_states?"
    r"|extra_state|trainer_state|training_args|trainer_log|running_log|data\.pt$|latest"
    r"|zero_to_fp32|gpujob_complete|COMPLETED$)|optim_states|optim_world_size|(^|/)optimizer_\d"
)
# What holds the whole model at the root; sharded copies below it are for a resume then.
_WHOLE = re.compile(
    r"^(model|pytorch_model|adapter_model|consolidated|tf_model)[^/]*"
    r"\.(safetensors|bin|pt|pth|gguf)$"
)
_SHARDED = re.compile(r"^(global_step|pytorch_model(_fsdp)?_\d|fsdp|distributed)[^/]*/|\.distcp$")


def choose_files(paths: Sequence[str], wanted: str) -> tuple[str, ...]:
    """`all`, `weights` (what it takes to load the model, without optimizer and random state), or
    a pattern over the path or its last part. Raises NotFound when it means nothing."""
    if wanted == "all":
        return tuple(paths)
    chosen = _weights(paths) if wanted == "weights" else _matching(paths, wanted)
    if not chosen:
        some = ", ".join(paths[:5])
        raise NotFound(
            f"no file of this checkpoint is meant by {wanted!r}",
            hint=f"it holds {some}{' …' if len(paths) > 5 else ''}; `--files all` is everything",
        )
    return chosen


def _weights(paths: Sequence[str]) -> tuple[str, ...]:
    whole = any(_WHOLE.search(path) for path in paths)
    return tuple(
        path for path in paths if not _STATE.search(path) and not (whole and _SHARDED.search(path))
    )


def _matching(paths: Sequence[str], pattern: str) -> tuple[str, ...]:
    return tuple(
        path
        for path in paths
        if fnmatchcase(path, pattern) or fnmatchcase(path.rpartition("/")[2], pattern)
    )
