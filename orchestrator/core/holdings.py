"""Questions about a run that more than one part asks: what is here, what is missing, what a crash
has cost."""

from __future__ import annotations

from orchestrator.core.phase_of import full_name
from orchestrator.core.run import Attempt, Instance, Run, Seal, Source, is_pushed
from orchestrator.core.signatures.faults import Reaction


def newest_source(run: Run, on_box: str | None, *, warm: bool = True) -> Source | None:
    """The checkpoint to resume from: the highest step of this phase that is mirrored here, in S3 or
    sealed on the living box `on_box`; among equals the youngest. Before there is one, what the
    phase resumes from. Without `warm`, none that has weights alone."""
    mine = {attempt.number for attempt in run.phase_attempts}
    held = [
        seal
        for seal in run.seals
        if seal.step is not None
        and seal.attempt in mine
        and not seal.final
        and (seal.resumes or warm)
        and seal.digest not in run.unusable
        and seal.digest not in run.pruned
        and (
            seal.digest in run.mirrored
            or is_pushed(run, seal)
            or (on_box and is_on(run, seal, on_box))
        )
    ]
    if not held:
        return _handed_over(run)
    best = max(held, key=lambda seal: (seal.step or 0, seal.sealed_at))
    return Source(best.name, best.step or 0, best.digest)


def _handed_over(run: Run) -> Source | None:
    phase = run.phase
    return phase.start if phase and phase.how == "resume" else None


def is_on(run: Run, seal: Seal, box: str) -> bool:
    """Whether the living box `box` holds the seal: its own, or any that lies on the volume."""
    return not seal.failed and (seal.instance == box or bool(run.volume))


def is_stored(run: Run, seal: Seal) -> bool:
    """Whether the seal can be fetched without a box: it was pushed, or its volume answers S3."""
    return is_pushed(run, seal) or (
        bool(run.volume) and run.volume_store and not seal.failed_stored
    )


def missing_here(run: Run) -> tuple[Seal, ...]:
    """Sealed where it may still be reached, not mirrored, and not let go by `checkpoints.keep`."""
    return tuple(
        seal
        for seal in run.seals
        if seal.digest not in run.mirrored
        and seal.digest not in run.pruned
        and (_may_be_on_a_box(run, seal) or is_stored(run, seal))
    )


def _may_be_on_a_box(run: Run, seal: Seal) -> bool:
    lost = {each.id for each in run.instances if each.lost or each.gone_at}
    if seal.failed:
        return False
    return seal.instance not in lost or bool(run.volume and run.instance)


def untold(run: Run, box: str) -> tuple[Seal, ...]:
    """On record as here, and the living box `box` was not told: it may still hold the only copy,
    for it is told once every byte was found here."""
    return tuple(
        seal
        for seal in run.seals
        if is_on(run, seal, box) and not seal.acked and seal.digest in run.mirrored
    )


def never_came(run: Run) -> tuple[str, ...]:
    """Names of checkpoints that a box reported complete and of which no copy is here or in S3."""
    named = {seal: full_name(run, seal) for seal in run.seals}
    here = {
        named[seal]
        for seal in run.seals
        if seal.digest in run.mirrored or is_pushed(run, seal) or seal.digest in run.pruned
    }
    return tuple(dict.fromkeys(name for name in named.values() if name not in here))


def unlooked(run: Run) -> tuple[Instance, ...]:
    """Lost boxes that may have left more in S3 than was heard of."""
    if not (run.also or (run.volume and run.volume_store)):
        return ()
    used = {attempt.instance for attempt in run.attempts}
    return tuple(
        each for each in run.instances if each.lost and each.id in used and not each.looked
    )


def unpushed(run: Run) -> tuple[Seal, ...]:
    """What the living box still has to push."""
    box = run.instance
    if not run.also or box is None:
        return ()
    return tuple(
        seal
        for seal in run.seals
        if seal.instance == box.id
        and seal.digest not in run.pushed
        and seal.digest not in run.never_pushed
        and not seal.failed
    )


def crashes_spent(run: Run) -> int:
    """Crashes of this phase that count against its budget: one that gained no step since the
    attempt before counts double. A trainer that was stopped has not crashed, unless it hung or
    left nothing; one that its machine brought down is the machine's loss."""
    spent = 0
    for attempt in run.phase_attempts:
        if attempt.ended_at is None or attempt.lost or not _crashed(run, attempt):
            continue
        started_from = attempt.resume.step if attempt.resume else 0
        reached = max(
            (seal.step or 0 for seal in run.seals if seal.attempt == attempt.number), default=0
        )
        spent += 1 if reached > started_from else 2
    return spent


def left_nothing(run: Run, attempt: Attempt) -> bool:
    """Whether it was stopped at a step and no checkpoint at or past that step can be had."""
    if attempt.stopping_for != "steps" or attempt.live:
        return False
    mine = {each.number for each in run.attempts if each.phase == attempt.phase}
    had = [s for s in run.seals if not s.failed or s.digest in run.mirrored or is_stored(run, s)]
    reached = max((seal.step or 0 for seal in had if seal.attempt in mine), default=0)
    return reached < (attempt.stopping_step or 0)


def _crashed(run: Run, attempt: Attempt) -> bool:
    if attempt.stopping_at:
        return attempt.stopping_for == "hang" or left_nothing(run, attempt)
    return attempt.rc != 0 and attempt.reaction != Reaction.ANOTHER_HOST


def host_losses(run: Run) -> int:
    """What counts against `recovery.host_loss` of this phase: boxes that were lost once they
    worked, and restarts. A boot that failed is the search's trouble."""
    since = run.phase.began_at if run.phase and run.serial else None
    lost = sum(
        1
        for each in run.instances
        if each.lost and each.booted and (since is None or (each.lost_at or since) >= since)
    )
    return lost + run.restarts
