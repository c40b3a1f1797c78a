"""Folders that frameworks other than the Hugging Face Trainer write: the DeepSpeed engine,
accelerate and what is built on it, verl, torchtune."""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Tuple

from remote.agent.layouts.distcp import missing_shards
from remote.agent.layouts.huggingface import missing_weights
from remote.agent.layouts.model import Context, Verdict, gaps
from remote.agent.layouts.tree import Tree
from remote.agent.layouts.zero import LATEST, Zero

COMPLETED = "COMPLETED"
TRACKER = "latest_checkpointed_iteration.txt"
RECIPE_STATE = "recipe_state/recipe_state.pt"
_RANDOM = r"random_states_(\d+)\.pkl"
_REGISTERED = re.compile(r"^custom_checkpoint_\d+\.pkl$")
_FSDP = re.compile(r"^(?:pytorch_model_fsdp|optimizer)_\d+/")
_VERL_SHARD = re.compile(
    r"^(actor|critic)/(model|optim|extra_state)_world_size_(\d+)_rank_(\d+)\.pt$"
)
_KINDS = ("model", "optim", "extra_state")


def deepspeed(name: str, tree: Tree, context: Context) -> Verdict:
    """One tag of `engine.save_checkpoint`."""
    zero = Zero.of(tree)
    missing = zero.missing(context.ranks)
    step = None if missing else zero.step
    return Verdict(missing, step, None, _rows(zero), doubtful=zero.is_doubtful)


def accelerate(name: str, tree: Tree, context: Context) -> Verdict:
    """`Accelerator.save_state`: there is no barrier at its end, so every rank's random state is
    counted. What a program registers is written after rank 0's, and how much that is only an
    earlier checkpoint tells: the first one is doubtful."""
    random = tree.matches(_RANDOM)
    zero = Zero.of(tree.inside(tree.word(LATEST) or LATEST)) if LATEST in tree else None
    gap = gaps(random, context.ranks)
    missing = (
        (zero.missing(context.ranks) if zero else _missing_state(tree, context.ranks))
        or ("random_states_%d.pkl" % gap if gap is not None else None)
        or _missing_registered(tree, context)
    )
    step = zero.step if zero and not missing else None
    doubtful = context.usual is None or (zero is not None and zero.is_doubtful)
    return Verdict(missing, step, None, len(random), doubtful)


def open_instruct(name: str, tree: Tree, context: Context) -> Verdict:
    """accelerate's state, and `COMPLETED`, which any rank writes before the others are done; a
    resume looks for it."""
    verdict = accelerate(name, tree, context)
    if verdict.missing or tree.text(COMPLETED):
        return verdict
    return Verdict(COMPLETED, verdict.step, None, verdict.world_size)


def verl(name: str, tree: Tree, context: Context) -> Verdict:
    """The names say of how many ranks each shard is. The actor is written, then the critic, then
    `data.pt`, and the tracker last; where saving is asynchronous the tracker is not written, and
    the next save says that this one is over. Retention removes `actor` and `critic` and leaves
    the shell."""
    shards = _verl_shards(tree)
    roles = sorted({role for role, _ in shards} | {"actor"})
    ranks: List[int] = []
    for role in roles:
        for kind in _KINDS:
            size, have = shards.get((role, kind), (1, {}))
            gap = gaps(have, size)
            if gap is not None:
                return Verdict("%s/%s_world_size_*_rank_%d.pt" % (role, kind, gap))
            ranks.append(size)
    step = int(name.rpartition("_")[2])
    if "critic" in {path.partition("/")[0] for path in tree} and "critic" not in roles:
        return Verdict("critic/model_world_size_*_rank_0.pt")
    if "data.pt" not in tree:
        return Verdict("data.pt")
    tracked = context.beside.get(TRACKER, b"").strip()
    is_over = context.ended or (context.newest or 0) > step
    if not is_over and not (tracked.isdigit() and int(tracked) >= step):
        return Verdict("%s in %s" % (step, TRACKER))
    return Verdict(None, step, None, max(ranks))


def torchtune(name: str, tree: Tree, context: Context) -> Verdict:
    """Weights, then the recipe's state beside them, which the next save writes again. The last
    epoch is saved without it."""
    missing = missing_weights(tree, None, 1)
    if missing:
        return Verdict(missing)
    if RECIPE_STATE not in tree:
        return Verdict("%s younger than the weights" % RECIPE_STATE, weights=True)
    return Verdict(None)


def outranks(name: str, other: str) -> bool:
    """open-instruct prefers any `step_*` to every `epoch_*`."""
    return name.startswith("step_") and other.startswith("epoch_")


def _missing_state(tree: Tree, ranks: int) -> Optional[str]:
    sharded = sorted({match[0].rstrip("/") for match in map(_FSDP.match, tree) if match})
    for folder in sharded:
        missing = missing_shards(tree, folder, ranks)
        if missing:
            return missing
    if sharded:
        wanted = ("pytorch_model_fsdp_", "optimizer_")
        absent = [each for each in wanted if not any(name.startswith(each) for name in sharded)]
        files = {"pytorch_model_fsdp_": "pytorch_model_fsdp.bin", "optimizer_": "optimizer.bin"}
        return next((files[each] for each in absent if files[each] not in tree), None)
    missing = missing_weights(tree, None, ranks)
    if missing:
        return missing
    return None if "optimizer.bin" in tree or "optimizer.pt" in tree else "optimizer.bin"


def _missing_registered(tree: Tree, context: Context) -> Optional[str]:
    usual = sorted(path for path in context.usual or () if _REGISTERED.match(path))
    return next((path for path in usual if path not in tree), None)


def _verl_shards(tree: Tree) -> Dict[Tuple[str, str], Tuple[int, Dict[int, str]]]:
    """By role and kind: the world size in the names, and the files by rank."""
    found: Dict[Tuple[str, str], Tuple[int, Dict[int, str]]] = {}
    for path in tree:
        match = _VERL_SHARD.match(path)
        if match:
            size, have = found.get((match[1], match[2]), (0, {}))
            have[int(match[4])] = path
            found[match[1], match[2]] = max(size, int(match[3])), have
    return found


def _rows(zero: Zero) -> Optional[int]:
    return len({row for row, _ in zero.optimizers}) or None
