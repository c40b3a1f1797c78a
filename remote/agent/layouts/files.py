"""Checkpoints that are single files, or a few side by side: Lightning, torchllms, nanochat."""

from __future__ import annotations

import re
from typing import Dict, Optional

from remote.agent.layouts.distcp import METADATA, missing_shards
from remote.agent.layouts.model import Context, Verdict, gaps
from remote.agent.layouts.tree import Tree, pickled_number
from remote.agent.layouts.zero import LATEST, Zero

TRAIN_ARGS = "train_args.json"
_OPTIMIZER = re.compile(r"^optim_\d+(?:_rank(\d+))?\.pt$")


def lightning(name: str, tree: Tree, context: Context) -> Verdict:
    """One file, moved into place whole where the temporary folder is on the same disk and copied
    where it is not; or a folder, when a sharded strategy saves."""
    if name in tree:
        step = pickled_number(tree.pickled(name), "global_step")
        return Verdict(None if step is not None else "whole %s" % name, step, None, None)
    if LATEST in tree:
        zero = Zero.of(tree.inside(tree.word(LATEST) or LATEST))
        return Verdict(zero.missing(context.ranks), zero.step, None, None, zero.is_doubtful)
    missing = missing_shards(tree, "", context.ranks)
    if METADATA in tree and not missing and "meta.pt" not in tree:
        missing = "meta.pt"
    return Verdict(missing)


def torchllms(name: str, tree: Tree, context: Context) -> Verdict:
    """Weights alone, saved in place by rank 0. Its container tells whether it is whole."""
    if name not in tree:
        return Verdict(name)
    return Verdict(None if tree.record(TRAIN_ARGS) is not None else "whole %s" % TRAIN_ARGS)


def nanochat(name: str, tree: Tree, context: Context) -> Verdict:
    """The model and its meta from rank 0, then an optimizer file of each rank."""
    meta = _first(tree, "meta_")
    if meta is None or _first(tree, "model_") is None:
        return Verdict("model_*.pt and meta_*.json")
    record = tree.record(meta)
    if record is None:
        return Verdict("whole %s" % meta)
    optimizers: Dict[int, str] = {}
    for path in tree:
        match = _OPTIMIZER.match(path)
        if match:
            optimizers[int(match[1] or 0)] = path
    gap = gaps(optimizers, context.ranks)
    if gap is not None:
        return Verdict("optim_*_rank%d.pt" % gap, weights=not optimizers)
    return Verdict(None, None, None, len(optimizers))


def _first(tree: Tree, prefix: str) -> Optional[str]:
    return min((path for path in tree if path.startswith(prefix)), default=None)
