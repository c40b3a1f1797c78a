"""The daemon's part of a rehearsal, with what only a rehearsal does: boxes that are lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.core.run import Run
from orchestrator.flows.rehearsal.bench import Bench

LOOK_S = 0.1


@dataclass
class Drive:
    """Steps the run as a daemon does, loses a box in each phase once it has a checkpoint here, and
    says yes where a person is asked."""

    run_id: str
    bench: Bench
    late: str = ""
    _lost: set[int] = field(default_factory=set)
    _asked: set[int] = field(default_factory=set)
    _told: int = -1

    def play(self) -> None:
        bench = self.bench
        while bench.turn(self.run_id):
            run = bench.ledger.run(self.run_id)
            self._tell(run)
            self._answer(run)
            self._lose(run)
            self._hurry(run)
            bench.clock.wait(LOOK_S)

    def _tell(self, run: Run) -> None:
        if run.phase and run.serial != self._told:
            self._told = run.serial
            self.bench.tell(f"phase {run.phase.name}")

    def _answer(self, run: Run) -> None:
        phase = run.phase
        if phase and phase.waiting and run.serial not in self._asked:
            self._asked.add(run.serial)
            told = {"phase": phase.name, "yes": True, "by": "rehearsal"}
            self.bench.ledger.append(run.id, "requested.approve", told)

    def _lose(self, run: Run) -> None:
        """The provider ends the box, as a host that dies does: nobody is asked first."""
        attempt = run.attempt
        if run.serial in self._lost or attempt is None or not attempt.live or run.outcome:
            return
        mine = [s for s in run.seals if s.attempt == attempt.number and s.digest in run.mirrored]
        instance = run.find_instance(attempt.instance)
        if mine and instance.provider_id and attempt.stopping_at is None:
            self._lost.add(run.serial)
            self.bench.tell(f"  {mine[-1].name} is here; its box is lost now")
            self.bench.provider.terminate(instance.provider_id)

    def _hurry(self, run: Run) -> None:
        began_at = run.phase.began_at if run.phase else run.created_at
        if self.late or began_at is None or run.outcome:
            return
        if (self.bench.clock.now() - began_at).total_seconds() > self.bench.limit_s:
            self.late = run.phase.name if run.phase else "the beginning"
            told = {"reason": "the rehearsal of a phase took too long"}
            self.bench.ledger.append(run.id, "requested.teardown", told)
