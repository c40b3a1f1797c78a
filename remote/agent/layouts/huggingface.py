"""`checkpoint-<step>` of the Hugging Face Trainer and of all that is built on it, transformers 4.36
to 5.x, with DeepSpeed or FSDP inside; and the final weights that it leaves at the root."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Set

from remote.agent.layouts.distcp import METADATA, missing_shards
from remote.agent.layouts.model import Context, Verdict, gaps, number
from remote.agent.layouts.tree import Tree
from remote.agent.layouts.zero import LATEST, Zero

STATE = "trainer_state.json"
SENTINEL = "checkpoint-is-incomplete.txt"
_RANDOM = r"rng_state_(\d+)\.pth"
_WHOLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model_fsdp.bin")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_FSDP_WEIGHTS, _FSDP_OPTIMIZER = "pytorch_model_fsdp_0", "optimizer_0"


def huggingface(name: str, tree: Tree, context: Context) -> Verdict:
    """Rank 0 writes `trainer_state.json` last, but other ranks may write after it: every rank's
    random state and shard is counted. A trainer that wrote `rng_state.pth` says itself that it
    has one rank."""
    step = int(name.rpartition("-")[2])
    state = tree.record(STATE) or {}
    alone = "rng_state.pth" in tree and not tree.matches(_RANDOM) and context.at_least <= 1
    ranks = 1 if alone else context.ranks
    zero = Zero.of(tree.inside(tree.word(LATEST) or LATEST)) if LATEST in tree else None
    missing = (
        ("end of the save (%s is there)" % SENTINEL if SENTINEL in tree else None)
        or _missing_state(tree, state, step)
        or missing_weights(tree, zero, ranks)
        or _missing_optimizer(tree, zero, ranks)
        or _missing_random(tree, ranks)
    )
    doubtful = zero is not None and zero.is_doubtful
    return Verdict(missing, step, number(state.get("max_steps")), ranks, doubtful)


def final(tree: Tree) -> Verdict:
    """The rule for what a finished trainer left at the root: weights and their configuration."""
    state = tree.record(STATE) or {}
    missing = missing_weights(tree, None, 1)
    if not missing and not {"config.json", "adapter_config.json"} & set(tree):
        missing = "config.json"
    return Verdict(missing, number(state.get("global_step")), number(state.get("max_steps")))


def missing_weights(tree: Tree, zero: Optional[Zero], ranks: int) -> Optional[str]:
    """A model or an adapter, whole: each shard that an index names."""
    for index in filter(_is_index, tree):
        shards = _shards(tree.record(index))
        absent = sorted(shards - set(tree))
        if absent or not shards:
            return absent[0] if absent else "the shards that %s names" % index
        return None
    if any(name in tree for name in _WHOLE_WEIGHTS):
        return None
    if _FSDP_WEIGHTS + "/" + METADATA in tree:
        return missing_shards(tree, _FSDP_WEIGHTS, ranks)
    adapter = next((name for name in _ADAPTERS if name in tree), None)
    if adapter or "adapter_config.json" in tree:
        config = None if "adapter_config.json" in tree else "adapter_config.json"
        return config if adapter else _ADAPTERS[0]
    if zero and zero.is_zero3:
        return zero.missing(ranks)  # not gathered: the weights are in the shards alone
    return "weights"


def weights(files: Iterable[str]) -> List[str]:
    """The files among `files` that hold a model or adapter."""
    return [path for path in files if path.endswith((".safetensors", ".bin"))]


def _missing_state(tree: Tree, state: Dict[str, Any], step: int) -> Optional[str]:
    if STATE not in tree:
        return STATE
    if not state:
        return "whole %s" % STATE
    return None if state.get("global_step") == step else "%s of step %d" % (STATE, step)


def _missing_optimizer(tree: Tree, zero: Optional[Zero], ranks: int) -> Optional[str]:
    if zero:
        missing = zero.missing(ranks)
        return (
            "%s/: %s" % (tree.word(LATEST) or "the folder `latest` names", missing)
            if missing
            else None
        )
    if "optimizer.pt" not in tree and "optimizer.bin" not in tree:
        if not any(path.startswith(_FSDP_OPTIMIZER + "/") for path in tree):
            return "optimizer.pt"
        missing = missing_shards(tree, _FSDP_OPTIMIZER, ranks)
        if missing:
            return missing
    return None if "scheduler.pt" in tree else "scheduler.pt"


def _missing_random(tree: Tree, ranks: int) -> Optional[str]:
    if ranks == 1 and "rng_state.pth" in tree:
        return None
    gap = gaps(tree.matches(_RANDOM), ranks)
    return None if gap is None else "rng_state_%d.pth" % gap


def _is_index(path: str) -> bool:
    return "/" not in path and path.endswith((".safetensors.index.json", ".bin.index.json"))


def _shards(index: Optional[Dict[str, Any]]) -> Set[str]:
    try:
        return {str(shard) for shard in (index or {})["weight_map"].values()}
    except (KeyError, AttributeError):
        return set()
