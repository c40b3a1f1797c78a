"""From one phase to the next: what `decide` says of phases, put on record."""

from __future__ import annotations

from orchestrator.core.actions import (
    Action,
    Advance,
    AskApproval,
    Begin,
    Extend,
    Halt,
    Reached,
    Retire,
)
from orchestrator.core.codec import to_json
from orchestrator.core.gate import Decision, GateVerdict
from orchestrator.core.health.judge import Finding
from orchestrator.core.run import Run
from orchestrator.flows.evidence import Heard
from orchestrator.flows.hold import Hold

MOST_REASONS = 12


class Ladder:
    """Records verdicts and red flags once, when they are new, and the turns of the phases."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold

    def take_in(self, run: Run, heard: Heard) -> Run:
        """Put what is new of it on record, before anything is done for it."""
        for found in heard.flags:
            self._flag(run, found)
        if heard.gate:
            self._judged(run, heard.gate)
        return self._hold.run()

    def act(self, run: Run, action: Action) -> None:
        record = self._hold.record
        name = run.phase.name if run.phase else ""
        match action:
            case Begin():
                self._begin(action)
            case Advance(verdict):
                record("phase.ended", phase=name, verdict=verdict)
            case Reached(step):
                record("phase.reached", phase=name, step=step)
            case Extend(until_step):
                record("phase.extended", phase=name, until_step=until_step)
            case Halt(attempt, why, step):
                record("attempt.stopping", attempt=attempt, why=why, step=step)
            case AskApproval(why, reason, rules):
                record("phase.held", phase=name, why=why, reason=reason, rules=list(rules))
            case Retire(instance, reason):
                record("instance.retired", instance=instance, reason=reason)

    def _begin(self, action: Begin) -> None:
        plan = self._hold.plan.phases[action.index]
        keep, start = plan.checkpoints.keep, action.start
        resumes = plan.start is not None and plan.start.how == "resume"
        before = start.step if start and resumes else 0
        steps = plan.stop_after_steps
        self._hold.record(
            "phase.begun",
            phase=plan.name,
            index=action.index,
            key=plan.key,
            mirror=plan.checkpoints.mirror,
            metric=to_json(keep.best) if keep else None,
            start=to_json(start),
            how=plan.start.how if plan.start else "",
            until_step=None if steps is None else before + steps,
            instance=action.keep,
            host_loss=plan.recovery.host_loss,
            crash=plan.recovery.crash,
        )

    def _judged(self, run: Run, decision: Decision) -> None:
        """That nobody can say yet is no verdict."""
        phase = run.phase
        if decision.verdict is GateVerdict.WAITING:
            return
        told = (decision.verdict, decision.until_step, decision.key)
        if phase is None or told == (phase.verdict, phase.extends_to, phase.judged_key):
            return
        reasons = [f"{each.part}: {each.words}" for each in decision.reasons[:MOST_REASONS]]
        self._hold.record(
            "gate.judged",
            phase=phase.name,
            verdict=decision.verdict,
            reasons=reasons,
            until_step=decision.until_step,
            key=decision.key,
        )

    def _flag(self, run: Run, found: Finding) -> None:
        phase, action = run.phase, found.action or "warn"
        if phase is None or (found.rule, action) in phase.told:
            return
        self._hold.record(
            "health.flagged",
            phase=phase.name,
            rule=found.rule,
            flag=found.flag,
            action=action,
            words=found.evidence.words,
            advice=found.advice,
        )
