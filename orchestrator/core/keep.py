"""Which published checkpoints may go by `checkpoints.keep`. Pure, and once it says that one may
go it never says otherwise while the run only gains checkpoints, and none of them is measured late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.holdings import newest_source
from orchestrator.core.metrics import Metric
from orchestrator.core.run import Run, Seal


@dataclass(frozen=True)
class Keep:
    """The `last` so many, the `best` so many by a metric, those at a multiple of `every` steps;
    None is no such rule. What no rule keeps may go."""

    last: int | None = None
    best: Metric | None = None
    best_count: int = 1
    every: int | None = None


def prunable(run: Run, keep: Keep | None) -> tuple[Seal, ...]:
    """Published checkpoints that may be deleted here, oldest first.

    Never `final`, never the newest that a resume could start from, never what the newest attempt
    started from, none of unknown step, and none of which another copy is still due: on a living
    box that was not told, or in S3. Equal trees are one on the disk: what stays under one of its
    names stays."""
    if keep is None:
        return ()
    published = _published(run)
    kept = _last(published, keep) | _best(run, published, keep) | _every(run, keep)
    kept |= _needed(run, published)
    return tuple(
        seal for seal in published if seal.digest not in kept and not _is_owed(run, seal.digest)
    )


def ranked(run: Run, seals: Sequence[Seal], metric: Metric) -> list[Seal]:
    """Those that have this metric, best first; among equals the earlier step."""
    sign = 1.0 if metric.mode == "min" else -1.0
    known = [seal for seal in seals if metric.name in run.metrics.get(seal.digest, {})]
    return sorted(
        known, key=lambda seal: (sign * run.metrics[seal.digest][metric.name], seal.step or 0)
    )


def _published(run: Run) -> list[Seal]:
    """The newest seal of each tree that is here and has a step, oldest step first; none of a tree
    that also has a name without one, or is `final`."""
    here = [seal for seal in run.seals if seal.digest in run.mirrored]
    stay = {seal.digest for seal in here if seal.final or seal.step is None}
    order = sorted(here, key=lambda seal: (seal.step or 0, seal.sealed_at))
    newest = {seal.digest: seal for seal in order if seal.digest not in stay}
    return [seal for seal in order if newest.get(seal.digest) is seal]


def _last(published: list[Seal], keep: Keep) -> set[str]:
    return {seal.digest for seal in published[-keep.last :]} if keep.last else set()


def _best(run: Run, published: list[Seal], keep: Keep) -> set[str]:
    """Some trainers measure after they save: as long as no later checkpoint has told the metric,
    one that has not told it may be the best."""
    if keep.best is None:
        return set()
    order = ranked(run, published, keep.best)
    told = {digest for digest, each in run.metrics.items() if keep.best.name in each}
    newest = max((_when(seal) for seal in run.seals if seal.digest in told), default=(0, 0))
    to_come = {
        seal.digest for seal in published if seal.digest not in told and _when(seal) > newest
    }
    return to_come | {seal.digest for seal in order[: keep.best_count]}


def _when(seal: Seal) -> tuple[int, int]:
    """Where in the run: a later attempt trains earlier steps anew."""
    return seal.attempt, seal.step or 0


def _every(run: Run, keep: Keep) -> set[str]:
    if keep.every is None:
        return set()
    return {
        seal.digest for seal in run.seals if seal.step is not None and seal.step % keep.every == 0
    }


def _needed(run: Run, published: list[Seal]) -> set[str]:
    """What a resume may start from: the newest, here or anywhere, and that of the last attempt."""
    here = [seal.digest for seal in published if seal.digest not in run.unusable]
    anywhere = newest_source(run, run.instance.id if run.instance else None)
    resumed = run.attempt.resume if run.attempt else None
    return {*here[-1:], *(source.digest for source in (anywhere, resumed) if source)}


def _is_owed(run: Run, digest: str) -> bool:
    """Whether a copy elsewhere is still to be made or heard of."""
    if run.also and digest not in run.pushed:
        return True
    living = {each.id for each in run.instances if each.usable}
    return any(
        seal.digest == digest and seal.instance in living and not seal.acked for seal in run.seals
    )
