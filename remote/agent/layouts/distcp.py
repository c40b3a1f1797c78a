"""What torch.distributed.checkpoint writes: shards, and when every rank's are there the
coordinator renames `.metadata` into place, which names them."""

from __future__ import annotations

import posixpath
import re
from typing import Optional, Set

from remote.agent.layouts.model import Context, Verdict, gaps
from remote.agent.layouts.tree import Tree

METADATA = ".metadata"
SHARDS = r"\.distcp$"
_STOP = b"."  # the last byte of every pickle
_NAMED = re.compile(rb"__\d+_\d+\.distcp")
_OF_ONE_RANK = r"__(\d+)\.metadata"


def missing_shards(tree: Tree, folder: str, ranks: int) -> Optional[str]:
    """What the sharded state in `folder` lacks."""
    inside = tree.inside(folder) if folder else tree
    alone = inside.matches(_OF_ONE_RANK)  # each rank tells of its own shards, without a barrier
    gap = gaps(alone, ranks) if alone else None
    if gap is not None:
        return posixpath.join(folder, "__%d%s" % (gap, METADATA))
    described = list(alone.values()) or [METADATA]
    named: Set[str] = set()
    for path in described:
        data = inside.text(path)
        if not data.endswith(_STOP):
            return posixpath.join(folder, path)
        named.update(each.decode() for each in _NAMED.findall(data))
    absent = sorted(named - set(inside))
    return posixpath.join(folder, absent[0]) if absent else None


def sharded_folders(tree: Tree) -> Set[str]:
    """The folders that hold shards or the description of some ("" is the checkpoint's own)."""
    return {
        posixpath.dirname(path)
        for path in tree
        if path.endswith((".distcp", METADATA)) and "/." not in posixpath.dirname("/" + path)
    }


def dcp(name: str, tree: Tree, context: Context) -> Verdict:
    """torchtitan's `step-<n>`, and whatever else DCP wrote. An export for Hugging Face has an
    index instead, which is written last and names its shards."""
    folders = sharded_folders(tree)
    if folders:
        found = (missing_shards(tree, folder, context.ranks) for folder in sorted(folders))
        return Verdict(next((each for each in found if each), None))
    index = tree.record("model.safetensors.index.json")
    shards = index.get("weight_map") if index else None
    if not isinstance(shards, dict) or not shards:
        return Verdict(METADATA)
    absent = sorted(set(map(str, shards.values())) - set(tree))
    return Verdict(absent[0] if absent else None)
