"""Which checkpoint a person means: `checkpoint-500`, `500`, `latest`, `best` or `final`."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.keep import ranked
from orchestrator.core.metrics import USUAL, Metric, usual_mode
from orchestrator.core.run import Run, Seal
from orchestrator.core.where import places
from orchestrator.errors import Ambiguous, NotFound


def split_wanted(wanted: str) -> tuple[str | None, str]:
    """`RUN:CHECKPOINT` as (run, checkpoint); the run is None when it is not named."""
    run, colon, name = wanted.rpartition(":")
    return (run if colon else None), name.rpartition("/")[2]


def choose_checkpoint(run: Run, wanted: str) -> Seal:
    """The seal that `wanted` means; of several under one name the one that is here, else the
    youngest. Raises NotFound with what there is, Ambiguous when two different ones are here.

    `latest` and `best` are of what can still be had, and never `final`."""
    if wanted == "best":
        return _best(run)
    found = _latest(run) if wanted == "latest" else [s for s in run.seals if _means(s, wanted)]
    if not found:
        raise NotFound(f"{run.id} has no checkpoint {wanted}", hint=_names(run))
    here = [seal for seal in found if seal.digest in run.mirrored]
    if len({seal.digest for seal in here}) > 1:
        there = sorted({run.mirrored[seal.digest] for seal in here})
        raise Ambiguous(
            f"{wanted} was written more than once: {', '.join(there)}",
            hint=f"name the one that is meant: {' or '.join(_folder(each) for each in there)}",
        )
    return (here or found)[-1]


def metric_of(run: Run) -> Metric | None:
    """What `best` means: `checkpoints.keep.best`, else the first of `USUAL` that is known."""
    if run.metric:
        return run.metric
    known = {name for metrics in run.metrics.values() for name in metrics}
    return next((Metric(name, usual_mode(name)) for name in USUAL if name in known), None)


def best_of(run: Run) -> Seal | None:
    metric = metric_of(run)
    held = [seal for seal in run.seals if not seal.final and places(run, seal)]
    order = ranked(run, held, metric) if metric else []
    return order[0] if order else None


def _best(run: Run) -> Seal:
    best = best_of(run)
    if best:
        return best
    metric = metric_of(run)
    known = sorted({name for metrics in run.metrics.values() for name in metrics})
    why = f"no checkpoint says what its {metric.name} is" if metric else "no metric is known"
    raise NotFound(
        f"{run.id} has no best checkpoint: {why}",
        hint=f"{'known are ' + ', '.join(known) + '; ' if known else ''}{_names(run)}",
    )


def _latest(run: Run) -> Sequence[Seal]:
    steps = [seal for seal in run.seals if not seal.final and seal.step is not None]
    held = [seal for seal in steps if places(run, seal)] or steps
    newest = max((seal.step or 0 for seal in held), default=None)
    found = [seal for seal in held if seal.step == newest]
    return found[-1:]


def _means(seal: Seal, wanted: str) -> bool:
    if wanted == "final":
        return seal.final
    return not seal.final and wanted in (seal.name, str(seal.step))


def _folder(path: str) -> str:
    return path.rpartition("/")[2]


def _names(run: Run) -> str:
    names = dict.fromkeys(seal.name for seal in run.seals)
    return f"there is {', '.join(names)}" if names else "no checkpoint is complete yet"
