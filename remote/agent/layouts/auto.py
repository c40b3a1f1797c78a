"""Names that several trainers use: what is inside says whose they are."""

from __future__ import annotations

from remote.agent.layouts.folders import (
    COMPLETED,
    RECIPE_STATE,
    accelerate,
    open_instruct,
    torchtune,
)
from remote.agent.layouts.model import Context, Verdict
from remote.agent.layouts.tree import Tree
from remote.agent.layouts.zero import LATEST


def step_or_epoch(name: str, tree: Tree, context: Context) -> Verdict:
    """`step_<n>` and `epoch_<n>`: open-instruct's, torchtune's, or a plain accelerate script's.

    open-instruct writes its marker within moments of what accelerate's rule asks for, so without
    one a checkpoint is doubtful, and lies still for longer first."""
    if COMPLETED in tree:
        return open_instruct(name, tree, context)
    if RECIPE_STATE in tree or not _is_accelerate(tree):
        return torchtune(name, tree, context)
    found = accelerate(name, tree, context)
    return Verdict(found.missing, found.step, found.max_steps, found.world_size, doubtful=True)


def _is_accelerate(tree: Tree) -> bool:
    return LATEST in tree or any(
        path.startswith(("random_states_", "optimizer.", "optimizer_")) for path in tree
    )
