"""Where the bytes of a checkpoint are: the one answer that every verb and screen gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.core.holdings import is_stored
from orchestrator.core.run import Instance, Run, Seal

# A box that was told of a checkpoint's arrival forgets it, but for its newest so many.
BOX_KEEPS = 2


@dataclass(frozen=True)
class Place:
    """`at` is the folder here, the instance, or the address in S3."""

    kind: Literal["here", "box", "s3"]
    at: str


def places(run: Run, seal: Seal) -> tuple[Place, ...]:
    """Where the checkpoint can be had, nearest first; empty when nobody has it any more."""
    found = []
    if seal.digest in run.mirrored:
        found.append(Place("here", run.mirrored[seal.digest]))
    box = _box_of(run, seal)
    if box and seal.digest not in run.pruned:
        found.append(Place("box", box.id))
    if is_stored(run, seal):
        found.append(Place("s3", run.pushed.get(seal.digest, f"volume {run.volume}")))
    return tuple(found)


def can_come(run: Run, seal: Seal) -> bool:
    """Whether a live run still brings it here, once more when it was here. What
    `checkpoints.keep` let go it does not."""
    if run.terminal or run.drained or seal.digest in run.pruned:
        return False
    return any(each.kind != "here" for each in places(run, seal))


def state_of(run: Run, seal: Seal) -> str:
    """One word or two for a screen."""
    if seal.digest in run.mirrored:
        return "verified"
    if seal.failed and not is_stored(run, seal):
        return "refused"
    found = {each.kind for each in places(run, seal)}
    if seal.digest in run.pruned:
        return "let go"
    if "box" in found and not run.drained:
        return "paused" if run.paused else "on its way"
    return "in S3" if "s3" in found else "lost with its box"


def _box_of(run: Run, seal: Seal) -> Instance | None:
    """The living box that still has it."""
    living = [each for each in run.instances if each.booted and each.usable]
    mine = [each for each in living if each.id == seal.instance or run.volume]
    if not mine:
        return None
    on_it = [each for each in run.seals if each.instance == seal.instance]
    return mine[-1] if not seal.acked or seal in on_it[-BOX_KEEPS:] else None
