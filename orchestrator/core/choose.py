"""Which checkpoint a person means: `checkpoint-500`, `500`, `latest`, `best` or `final`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.keep import ranked
from orchestrator.core.metrics import USUAL, Metric, usual_mode
from orchestrator.core.phase_of import of_phase, phase_name, serial_of
from orchestrator.core.run import Run, Seal
from orchestrator.core.where import places
from orchestrator.errors import Ambiguous, NotFound

NEWEST = ("latest", "best", "final")


def split_wanted(wanted: str) -> tuple[str | None, str, str]:
    """`RUN:PHASE/CHECKPOINT` as (run, phase, checkpoint); None or empty what is not named."""
    run, colon, rest = wanted.rpartition(":")
    phase, _, name = rest.rpartition("/")
    return (run if colon else None), phase, name


def in_phase(run: Run, phase: str) -> Run:
    """The run as the last of its phases with this name left it; all of it without a name. Raises
    NotFound."""
    if not phase:
        return run
    serials = [at for at, each in enumerate(run.phases) if each.name == phase]
    if not serials:
        names = ", ".join(dict.fromkeys(each.name for each in run.phases)) or "none yet"
        raise NotFound(f"{run.id} has had no phase {phase}", hint=f"its phases: {names}")
    return of_phase(run, serials[-1])


def choose_checkpoint(run: Run, wanted: str) -> Seal:
    """The seal that `wanted` means; of several under one name the one that is here, else the
    youngest. Raises NotFound with what there is, Ambiguous when two different ones are here.

    `latest` and `best` are of what can still be had, and never `final`; of the newest phase that
    has one."""
    if wanted in NEWEST and len(run.phases) > 1:
        return choose_checkpoint(_newest_phase(run, wanted), wanted)
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
            hint=f"name the one that is meant: {' or '.join(_names_of(run, here, there))}",
        )
    return (here or found)[-1]


def metric_of(run: Run) -> Metric | None:
    """What `best` means: `checkpoints.keep.best`, else the first of `USUAL` that is known."""
    if run.metric:
        return run.metric
    known = {name for metrics in run.metrics.values() for name in metrics}
    return next((Metric(name, usual_mode(name)) for name in USUAL if name in known), None)


def _newest_phase(run: Run, wanted: str) -> Run:
    """The run as its newest phase left it that has such a checkpoint."""
    views = [of_phase(run, serial) for serial in range(run.serial, -1, -1)]
    finals = [view for view in views if any(seal.final for seal in view.seals)]
    steps = [view for view in views if any(not seal.final for seal in view.seals)]
    found = (finals if wanted == "final" else steps) or views
    return replace(found[0], phases=found[0].phases[-1:])


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


def _names_of(run: Run, here: Sequence[Seal], there: Sequence[str]) -> list[str]:
    """Of two phases, or of one that wrote the name twice."""
    names = dict.fromkeys(phase_name(run, serial_of(run, seal)) for seal in here)
    if len(names) > 1:
        return [f"{name}/{here[0].name}" for name in names]
    return [_folder(each) for each in there]


def _folder(path: str) -> str:
    return path.rpartition("/")[2]


def _names(run: Run) -> str:
    names = dict.fromkeys(seal.name for seal in run.seals)
    return f"there is {', '.join(names)}" if names else "no checkpoint is complete yet"
