"""The mistakes that a phase showed when it was played, each with the key to change."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.core.rehearsal import curve, families
from orchestrator.core.rehearsal.keys import key_of
from orchestrator.core.rehearsal.report import Mistake
from orchestrator.flows.rehearsal.crash import why_it_crashed
from orchestrator.flows.rehearsal.scene import Played


def faults_of(played: Played) -> Iterator[Mistake]:
    for each in _faults(played):
        yield replace(each, key=key_of(each.key, played.phase, played.index))


def _faults(played: Played) -> Iterator[Mistake]:
    crash = _crash(played)
    if crash:
        yield crash
    elif all(seal.final for seal in played.seals) and not played.scene.late:
        unseen = _no_checkpoint(played)
        if unseen:
            yield unseen
            return
    yield from _ignored_resume(played)
    if played.is_own and played.seals:
        yield from _never_written(played)
        yield from _no_evaluation(played)


def _crash(played: Played) -> Mistake | None:
    for attempt in played.attempts:
        ended_badly = attempt.rc not in (None, 0) and attempt.why not in ("ok", "stopped")
        if ended_badly and not attempt.lost:
            log = played.told[attempt.number].log
            words = f"the trainer ended with {attempt.rc}: {attempt.message}"
            return why_it_crashed(log, words, played.part.job)
    return None


def _no_checkpoint(played: Played) -> Mistake | None:
    """Where checkpoints are that were not recognised; None when weights at the end are all that
    there is."""
    checkpoints = played.part.job.checkpoints
    found = families.written(played.left())
    if found is None and played.seals:
        return None
    if found is None:
        return Mistake(
            "checkpoints.path",
            f"no checkpoint was written below {checkpoints.path}, nor anywhere else",
            "let the trainer save within the rehearsal, or correct the folder",
        )
    family, root = found
    if not families.same_folder(root, checkpoints.path):
        return Mistake(
            "checkpoints.path",
            f"it says {checkpoints.path}, and the trainer writes its checkpoints to {root}",
            f"write `path: {root}`",
        )
    if played.seals and families.fits(checkpoints.layout, family):
        return None
    said = checkpoints.layout if isinstance(checkpoints.layout, str) else "your own"
    return Mistake(
        "checkpoints.layout",
        f"it says {said}, and what the trainer writes looks like {family}",
        f"write `layout: {family}`",
    )


def _ignored_resume(played: Played) -> Iterator[Mistake]:
    attempt = played.began_again()
    if attempt is None or attempt.resume is None:
        return
    resume = played.part.job.checkpoints.resume
    by_env = resume.env and not resume.args
    yield Mistake(
        "checkpoints.resume.env" if by_env else "checkpoints.resume.args",
        f"the trainer was told to go on from {attempt.resume.name} and began at step "
        f"{played.first_step(attempt)}: it does not resume, and a lost box would cost everything",
        "write the flag that the trainer reads, with {checkpoint}, and let the script use it",
    )


def _never_written(played: Played) -> Iterator[Mistake]:
    asked = dict(curve.asked_metrics(played.phase, played.index))
    keep = played.part.job.checkpoints.keep
    if keep and keep.best:
        asked["checkpoints.keep.best.metric"] = keep.best.metric
    yield from curve.never_written(asked, played.metrics)


def _no_evaluation(played: Played) -> Iterator[Mistake]:
    """A gate on a file that the command, which ended by itself, did not leave."""
    gate, left = played.phase.gate, played.left()
    file = gate.evaluation.file if gate and gate.evaluation else ""
    if file and left and posixpath.normpath(file) not in left:
        yield Mistake(
            f"phases[{played.index}].gate.evaluation.file",
            f"{file} was never written",
            "name the file that the phase's command writes, by its place in the work folder",
        )
