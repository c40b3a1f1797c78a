"""A job of three phases under simulation, and what must hold of any story that it lives through."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

from kit.plans import phase_plan, plan_of

from orchestrator.core.fold import fold_all
from orchestrator.core.gate import Gate, MetricGate
from orchestrator.core.offer import Need, Offer
from orchestrator.core.plan import CheckpointPlan, PhasePlan, Plan, ResumePlan, StartPlan
from orchestrator.core.run import Event, Recovery, Run, RunState
from orchestrator.errors import Transient
from sim.story import OFFER, RUN, Story

BIG = Offer("local", "cpu-4", "cpu", 4, 4, 16, 20, 2.0)
FALLS = Gate(metrics=(MetricGate("loss", below=5.0),))


def phase(name: str, offer: Offer = OFFER, **changes: Any) -> PhasePlan:
    checkpoints = CheckpointPlan("out", "huggingface", f"/mirror/{name}", ResumePlan("", {}, ""))
    need = Need((("cpu", offer.count),), 20)
    given = {"name": name, "need": need, "offers": (offer,), "key": f"key of {name}"}
    return phase_plan(
        **{**given, "checkpoints": checkpoints, "recovery": Recovery(6, 4), **changes}
    )


def three(second: Offer = OFFER, gate: Gate = FALLS) -> Plan:
    """A warm-up that is stopped, the same again to its end, and one that is told of its weights."""
    resume = StartPlan("warm", "latest", "resume", "gpujob_start/warm")
    path = StartPlan("full", "final", "path", "gpujob_start/full")
    return plan_of(
        phase("warm", stop_after_steps=20, gate=gate),
        phase("full", second, start=resume, gate=Gate(no_red_flags=True)),
        phase("tune", BIG, start=path),
    )


def climb(folder: Path, seed: int = 0, plan: Plan | None = None) -> Story:
    return Story(folder, seed=seed, plan=plan or three())


def climb_through(folder: Path, seed: int) -> dict[str, Any]:
    """One seed of the campaign: what was lived through, and what did not hold."""
    plan = three(BIG if seed % 2 else OFFER)
    story = climb(folder, seed, plan)
    story.world.faults.crash_at_step = 15 if seed % 3 == 0 else None
    told: dict[str, Any] = {"seed": seed, "violations": []}
    try:
        run = story.run(meddle=Weather(seed), limit_s=6000)
        told |= {"state": str(run.state), "boxes": len(story.world.boxes)}
        check_climb(story, run, plan)
        assert run.state == "SUCCEEDED", run.reason
    except AssertionError as error:
        told["violations"].append(str(error) or "an assertion failed")
    return told


class Weather:
    """Boxes die, lists fail, creates fail, and a person answers late: by one seed."""

    def __init__(self, seed: int, kills: int = 2, answer: bool = True) -> None:
        self._dice = random.Random(seed)
        self._kills = kills
        self._answer = answer

    def __call__(self, story: Story, run: Run) -> None:
        dice, world = self._dice, story.world
        if self._kills and world.living() and dice.random() < 0.01:
            self._kills -= 1
            world.kill(dice.choice(world.living()))
        if dice.random() < 0.02:
            world.faults.listing = 1
        if dice.random() < 0.005:
            world.faults.create.append(Transient("502"))
        if run.state is RunState.WAITING and dice.random() < 0.02:
            say(story, run, yes=self._answer)


def say(story: Story, run: Run, *, yes: bool) -> None:
    name = run.phase.name if run.phase else ""
    ledger = story._ledger()
    ledger.append(RUN, "requested.approve", {"phase": name, "yes": yes, "by": "me"})
    ledger.close()


def check_climb(story: Story, run: Run, plan: Plan) -> None:
    """What holds of any story of phases, however it ends."""
    events = story.events()
    assert run.terminal
    assert story.world.living() == []
    assert run.still_billing == ()
    assert run == fold_all(RUN, events)
    spans = sorted((each.intended_at, each.gone_at) for each in run.instances)
    for (_, ended), (began, _) in pairwise(spans):
        assert ended is not None and ended <= began, "two instances billed at once"
    _check_gates(events, plan)
    _check_places(events, run, plan)
    _check_starts(run)


def _check_gates(events: list[Event], plan: Plan) -> None:
    """No phase begins before the one before it has ended, with a GO for the key of now."""
    verdicts: dict[str, tuple[str, str]] = {}
    ended: list[str] = []
    for event in events:
        data = event.data
        if event.kind == "gate.judged":
            verdicts[data["phase"]] = (data["verdict"], data["key"])
        if event.kind == "phase.ended":
            ended.append(data["phase"])
        if event.kind == "phase.begun" and data["index"]:
            before = plan.phases[data["index"] - 1]
            assert ended[-1:] == [before.name]
            if before.gate:
                assert verdicts[before.name] == ("GO", before.key)


def _check_places(events: list[Event], run: Run, plan: Plan) -> None:
    """Every checkpoint is in the folder of the phase whose trainer wrote it."""
    folders = {phase.name: phase.checkpoints.mirror for phase in plan.phases}
    attempts = {each.number: run.phases[each.phase].name for each in run.attempts}
    sealed = {seal.digest: attempts[seal.attempt] for seal in run.seals}
    for event in events:
        if event.kind == "checkpoint.mirrored":
            name = sealed[event.data["digest"]]
            assert event.data["path"].startswith(f"{folders[name]}/"), event.data


def _check_starts(run: Run) -> None:
    """A phase resumes from what was handed over, until it has something of its own."""
    for serial, begun in enumerate(run.phases):
        mine = [each for each in run.attempts if each.phase == serial]
        if begun.start:
            assert begun.start.digest in run.mirrored
        if begun.how == "resume" and mine:
            assert mine[0].resume == begun.start
        if begun.how == "path" and mine:
            assert mine[0].resume is None
