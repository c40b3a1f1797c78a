"""What a phase starts from, when it stops, and what must hold before the next."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.gate import Gate
from orchestrator.core.plan import PhasePlan, StartPlan
from orchestrator.views.words import dollars, duration

Row = tuple[str, str]


def gate_rows(phase: PhasePlan) -> Iterator[Row]:
    if phase.start:
        yield "starts from", start_words(phase.start)
    if phase.stop_after_steps:
        yield "stops", f"after {phase.stop_after_steps} steps"
    for number, words in enumerate(gate_words(phase.gate) if phase.gate else ()):
        yield "" if number else "gate", words
    if phase.gate:
        held = duration(phase.hold_s)
        yield "", f"while a person is waited for, its box is kept for {held} and bills"


def start_words(start: StartPlan) -> str:
    which = f"{start.checkpoint} of {start.phase}"
    if start.given:
        given = start.given
        which = f"{given.source.name} of {start.phase}, from run {given.run} {given.note}".rstrip()
    how = "the trainer goes on from it" if start.how == "resume" else f"at {start.place}"
    return f"{which}: {how}"


def gate_words(gate: Gate) -> Iterator[str]:
    """What must hold, a line each."""
    if gate.loss_drop:
        drop = gate.loss_drop
        more = f", looked at again at {drop.extend_to}" if drop.extend_to else ""
        yield f"the loss falls by {drop.percent:g} % within {drop.within_steps} steps{more}"
    if gate.no_red_flags:
        yield "no red flag"
    for name in gate.require:
        yield f"{name} passes"
    for metric in gate.metrics:
        limit = f"above {metric.above:g}" if metric.above is not None else f"below {metric.below:g}"
        since = f" from step {metric.from_step} on" if metric.from_step else ""
        yield f"{metric.metric} is {limit}{since}"
    if gate.evaluation:
        yield f"{gate.evaluation.metric} of {gate.evaluation.file} beats {gate.evaluation.baseline}"
    if gate.cost:
        yield f"it costs at most {dollars(gate.cost.usd)}"
    if gate.approve:
        yield "a person approves"
