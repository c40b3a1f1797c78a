"""Which published checkpoints may go by `checkpoints.keep`. Pure, and once it says that one may
go it never says otherwise while the run only gains checkpoints."""

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
    box that was not told, or in S3."""
    if keep is None:
        return ()
    published = _published(run)
    kept = _last(published, keep) | _best(run, published, keep) | _every(published, keep)
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
    """The newest seal of each tree that is here and has a step, oldest step first."""
    found = {
        seal.digest: seal
        for seal in run.seals
        if seal.digest in run.mirrored and not seal.final and seal.step is not None
    }
    finals = {seal.digest for seal in run.seals if seal.final}
    return sorted(
        (seal for digest, seal in found.items() if digest not in finals),
        key=lambda seal: (seal.step or 0, seal.sealed_at),
    )


def _last(published: list[Seal], keep: Keep) -> set[str]:
    return {seal.digest for seal in published[-keep.last :]} if keep.last else set()


def _best(run: Run, published: list[Seal], keep: Keep) -> set[str]:
    """As long as no checkpoint has told the metric, any of them may be the best."""
    if keep.best is None:
        return set()
    order = ranked(run, published, keep.best)
    if not order and not any(keep.best.name in each for each in run.metrics.values()):
        return {seal.digest for seal in published}
    return {seal.digest for seal in order[: keep.best_count]}


def _every(published: list[Seal], keep: Keep) -> set[str]:
    if keep.every is None:
        return set()
    return {seal.digest for seal in published if (seal.step or 0) % keep.every == 0}


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
