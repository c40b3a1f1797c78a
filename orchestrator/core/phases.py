"""Questions about the phases of a run: what one has done, leaves to the next, and has cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.core.actions import Deadlines
from orchestrator.core.choose import best_of
from orchestrator.core.holdings import is_on, is_stored
from orchestrator.core.keep import Keep, prunable
from orchestrator.core.phase_of import of_phase, serial_of
from orchestrator.core.plan import Stage, StartPlan
from orchestrator.core.run import Attempt, Run, Seal, Source, final_is_safe, final_of, goal_of


def success_of(run: Run, now: datetime, deadlines: Deadlines) -> str:
    """How the phase has succeeded, in words; empty while it has not.

    Where its trainer is stopped at a step, a checkpoint at or past it is what counts, else final
    weights."""
    attempt = run.attempt
    if attempt is None or attempt.live:
        return ""
    goal = _goal_held(run)
    if goal is not None and (attempt.lost or is_settled(attempt, now, deadlines)):
        return f"stopped at step {goal.step} as asked"
    if attempt.lost:
        ended = final_is_safe(run) and reached_the_end(run, attempt)
        return "trained to the end before its box was lost" if ended else ""
    if not is_settled(attempt, now, deadlines):
        return ""
    final = final_of(run, attempt)
    if attempt.rc == 0:
        whole = final and (final.step is None or final.step >= (final.max_steps or 0))
        return "trained to the end" if whole else ""
    if final and reached_the_end(run, attempt):
        how = "the box was lost before it ended" if attempt.rc is None else f"exit {attempt.rc}"
        return f"complete with an error after training ({how})"
    return ""


def is_settled(attempt: Attempt, now: datetime, deadlines: Deadlines) -> bool:
    """Whether the box has sealed all that the attempt left, or had its time to."""
    ended_at = attempt.ended_at
    late = ended_at is not None and now - ended_at >= timedelta(seconds=deadlines.settle_s)
    return attempt.settled or late


def reached_the_end(run: Run, attempt: Attempt) -> bool:
    """Whether something that this attempt left says that it made its last step."""
    return any(
        seal.step is not None and seal.max_steps is not None and seal.step >= seal.max_steps
        for seal in run.seals
        if seal.attempt == attempt.number
    )


def has_goal(run: Run) -> bool:
    """Whether a checkpoint at or past the step where the phase stops is sealed and can be had."""
    return _goal_held(run) is not None


def choose_start(run: Run, start: StartPlan) -> Source | None:
    """The checkpoint that a later phase starts from; None when what was asked for is not here."""
    if start.given:
        return start.given.source
    serials = [at for at, phase in enumerate(run.phases) if phase.name == start.phase]
    if not serials and not (run.attempts and not run.phases):
        return None
    view = of_phase(run, serials[-1] if serials else 0)
    here = [seal for seal in view.seals if seal.digest in run.mirrored]
    seal = _wanted(replace(view, seals=tuple(here)), start.checkpoint)
    return Source(seal.name, seal.step or 0, seal.digest) if seal else None


def prunable_of(
    run: Run, serial: int, keep: Keep | None, stages: tuple[Stage, ...]
) -> tuple[Seal, ...]:
    """What `checkpoints.keep` of one phase lets go, but for what another phase starts from, or
    wrote byte for byte as well."""
    if keep is None:
        return ()
    held = {phase.start.digest for phase in run.phases if phase.start}
    held |= {seal.digest for seal in run.seals if serial_of(run, seal) != serial}
    index = run.phases[serial].index if run.phases else 0
    ahead = [each.start for each in stages[index + 1 :] if each.start]
    sources = [choose_start(run, start) for start in ahead if not start.given]
    held |= {source.digest for source in sources if source}
    return tuple(s for s in prunable(of_phase(run, serial), keep) if s.digest not in held)


def phase_usd(run: Run, now: datetime) -> float:
    """What was spent since this phase began."""
    began_at = run.phase.began_at if run.phase else run.created_at or now
    return sum(
        each.cost_between(began_at, each.ends_at(now)) for each in run.instances if not each.refused
    )


def _goal_held(run: Run) -> Seal | None:
    until = run.phase.until_step if run.phase else None
    if until is None:
        return None
    goals = [goal for each in run.phase_attempts if (goal := goal_of(run, each))]
    box = run.instance.id if run.instance else None
    held = [
        seal
        for seal in goals
        if (seal.step or 0) >= until
        and (
            seal.digest in run.mirrored
            or is_stored(run, seal)
            or (box is not None and is_on(run, seal, box))
        )
    ]
    return max(held, key=lambda seal: seal.step or 0, default=None)


def _wanted(run: Run, wanted: str) -> Seal | None:
    if wanted == "best":
        return best_of(run)
    if wanted == "final":
        found = [seal for seal in run.seals if seal.final]
    elif wanted == "latest":
        steps = [seal for seal in run.seals if not seal.final]
        newest = max((seal.step or 0 for seal in steps), default=None)
        found = [seal for seal in steps if (seal.step or 0) == newest]
        found = found or [seal for seal in run.seals if seal.final]
    else:
        found = [seal for seal in run.seals if not seal.final and seal.name == wanted]
    return found[-1] if found else None
