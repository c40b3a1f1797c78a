"""Which checkpoint a person means: `checkpoint-500`, `500`, `latest` or `final`."""

from __future__ import annotations

from orchestrator.core.run import Run, Seal
from orchestrator.errors import Ambiguous, NotFound


def split_wanted(wanted: str) -> tuple[str | None, str]:
    """`RUN:CHECKPOINT` as (run, checkpoint); the run is None when it is not named."""
    run, colon, name = wanted.rpartition(":")
    return (run if colon else None), name.rpartition("/")[2]


def choose_checkpoint(run: Run, wanted: str) -> Seal:
    """The seal that `wanted` means; of several under one name the one that is here, else the
    youngest. Raises NotFound with what there is, Ambiguous when two different ones are here."""
    if wanted == "best":
        raise NotFound("`best` needs a metric, which is not supported yet", hint=_names(run))
    found = [seal for seal in run.seals if _means(run, seal, wanted)]
    if not found:
        raise NotFound(f"{run.id} has no checkpoint {wanted}", hint=_names(run))
    here = [seal for seal in found if seal.digest in run.mirrored]
    if len({seal.digest for seal in here}) > 1:
        places = ", ".join(sorted({run.mirrored[seal.digest] for seal in here}))
        raise Ambiguous(f"{wanted} was written more than once: {places}", hint="copy the one meant")
    return (here or found)[-1]


def _means(run: Run, seal: Seal, wanted: str) -> bool:
    if wanted == "latest":
        steps = [each.step or 0 for each in run.seals if not each.final]
        return not seal.final and seal.step == max(steps, default=None)
    if wanted == "final":
        return seal.final
    return not seal.final and wanted in (seal.name, str(seal.step))


def _names(run: Run) -> str:
    names = dict.fromkeys(seal.name for seal in run.seals)
    return f"there is {', '.join(names)}" if names else "no checkpoint is complete yet"
