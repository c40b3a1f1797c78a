"""Plans of one phase for tests: what a test does not say is as small as it can be."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from orchestrator.core.offer import Need, Offer
from orchestrator.core.plan import CheckpointPlan, PhasePlan, Plan, ResumePlan
from orchestrator.core.run import Limits, Recovery

OFFER = Offer("local", "cpu-2", "cpu", 2, 2, 8, 20, 1.0)
_OF_RUN = {each.name for each in fields(Plan)} - {"phases"}


def phase_plan(**changes: Any) -> PhasePlan:
    plan = PhasePlan(
        name="main",
        need=Need((("cpu", 2),), 20),
        offers=(OFFER,),
        uploads=(),
        env={},
        setup="",
        command="train {resume}",
        train=None,
        checkpoints=CheckpointPlan("out", "huggingface", "/mirror", ResumePlan("", {}, "")),
        recovery=Recovery(host_loss=10, crash=2),
    )
    return replace(plan, **changes)


def plan_of(*phases: PhasePlan, **changes: Any) -> Plan:
    """A plan of these phases, or of one; `changes` to the plan, and to that one phase."""
    whole = {name: changes.pop(name) for name in _OF_RUN & set(changes)}
    made = phases or (phase_plan(**changes, secrets=whole.get("secrets", ())),)
    plan = Plan(v=2, name="demo", folder="/jobs", limits=Limits(), secrets=(), phases=made)
    return replace(plan, **whole)


def changed(plan: Plan, **changes: Any) -> Plan:
    """The plan of one phase with changes to that phase."""
    (only,) = plan.phases
    return replace(plan, phases=(replace(only, **changes),))
