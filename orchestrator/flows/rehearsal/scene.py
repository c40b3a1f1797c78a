"""A rehearsal that has ended, and each of its phases as it was played."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.phase_of import of_phase
from orchestrator.core.rehearsal import curve
from orchestrator.core.rehearsal.small import Part
from orchestrator.core.run import Attempt, Run
from orchestrator.core.run import Phase as Begun
from orchestrator.core.spec import Job
from orchestrator.flows.rehearsal.props import left_behind
from orchestrator.flows.rehearsal.told import newest_state, told_by


@dataclass(frozen=True)
class Scene:
    """`folder` is the run's; `uploaded` are the paths that were in the work folder before; `late`
    names the phase that took too long."""

    job: Job
    parts: tuple[Part, ...]
    run: Run
    folder: Path
    uploaded: tuple[str, ...]
    why_stand_in: Mapping[str, str]
    late: str = ""
    left_out: tuple[str, ...] = ()

    def played(self) -> Iterator[Played]:
        for serial, begun in enumerate(self.run.phases):
            yield Played(self, serial, begun)

    @property
    def never_begun(self) -> tuple[str, ...]:
        begun = {each.index for each in self.run.phases}
        return tuple(p.phase.name for index, p in enumerate(self.parts) if index not in begun)


class Played:
    """One phase: what its attempts told, sealed and left behind."""

    def __init__(self, scene: Scene, serial: int, begun: Begun) -> None:
        self.scene, self.begun, self.index = scene, begun, begun.index
        self.part = scene.parts[begun.index]
        self.phase = self.part.phase
        self.attempts = tuple(each for each in scene.run.attempts if each.phase == serial)
        self.seals = of_phase(scene.run, serial).seals
        self.here = tuple(each for each in self.seals if each.digest in scene.run.mirrored)
        self.told = {each.number: told_by(each, scene.folder) for each in self.attempts}
        self.is_own = self.phase.name not in scene.why_stand_in
        samples = [s for told in self.told.values() for s in curve.samples_of(told)]
        samples += curve.samples_of(curve.Told(state=newest_state(scene.run, self.seals)))
        self.metrics = curve.metrics_of(samples)

    def left(self) -> set[str]:
        """The files that its commands, those that ended by themselves, left in the work folder."""
        logs = b"\n".join(told.log for told in self.told.values())
        return set(left_behind(logs, self.scene.uploaded))

    def resumed(self) -> Iterator[tuple[Attempt, Attempt]]:
        """Each attempt that had another one before it, and that one."""
        yield from zip(self.attempts, self.attempts[1:], strict=False)

    def first_step(self, attempt: Attempt) -> int | None:
        found = curve.first_step(self.told[attempt.number])
        if found is not None:
            return found
        steps = [s.step for s in self.seals if s.attempt == attempt.number and s.step]
        return min(steps, default=None)

    def began_again(self) -> Attempt | None:
        """The first attempt that was told to go on from a checkpoint, and did not."""
        for _, attempt in self.resumed():
            first = self.first_step(attempt)
            if attempt.resume and first is not None and first <= attempt.resume.step:
                return attempt
        return None
