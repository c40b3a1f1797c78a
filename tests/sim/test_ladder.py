"""Phases under simulation: whatever dies, each begins after a GO, and no two instances bill."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.gate import Gate, LossDrop, MetricGate
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run, RunState
from sim.ladder import BIG, FALLS, Weather, check_climb, climb, climb_through, say, three
from sim.story import RUN, Story

DONE = ("SUCCEEDED", "trained to the end")
ASKS = Gate(metrics=FALLS.metrics, approve=True)


def test_three_phases_on_two_machines(tmp_path: Path) -> None:
    story, plan = climb(tmp_path), three()
    run = story.run()
    check_climb(story, run, plan)
    assert (run.state, run.reason) == DONE
    assert [each.name for each in run.phases] == ["warm", "full", "tune"]
    offers = [each.offer for each in run.instances]
    assert offers == ["cpu-2", "cpu-4"], "the second goes on where the first ran"
    warm, full, tune = run.attempts
    assert warm.instance == full.instance != tune.instance
    assert (warm.rc, full.rc, tune.rc) == (143, 0, 0)
    assert full.resume and full.resume.step in (20, 30)
    assert tune.resume is None
    assert run.phases[2].start and run.phases[2].start.name == "final"


@dataclass(frozen=True)
class Tale:
    """A story of phases that ends well, on so many boxes, whenever its controller dies. A person
    answers after `thinks_s`."""

    plan: Plan
    boxes: int
    crash_at: int | None = None
    thinks_s: float = 10.0
    loss: Callable[[int], float] = lambda step: 9.0 / step

    def begin(self, folder: Path) -> Story:
        story = climb(folder, plan=self.plan)
        story.world.faults.crash_at_step = self.crash_at
        story.world.loss = self.loss
        return story

    def answer(self) -> Callable[[Story, Run], None]:
        asked: list[float] = []

        def meddle(story: Story, run: Run) -> None:
            if run.state is not RunState.WAITING:
                asked.clear()
                return
            asked.append(story.world.now_s)
            if story.world.now_s - asked[0] >= self.thinks_s:
                say(story, run, yes=True)

        return meddle


def first(plan: Plan, **changes: Any) -> Plan:
    """The plan with changes to its first phase."""
    return replace(plan, phases=(replace(plan.phases[0], **changes), *plan.phases[1:]))


LOW = {"rules": [{"metric": "loss", "below": 0.8, "action": "ask", "name": "low"}]}
TALES = {
    "kept, then another": Tale(three(), 2),
    "another, then kept": Tale(three(BIG), 2),
    "a crash": Tale(three(), 2, crash_at=15),
    "a person answers in time": Tale(three(gate=ASKS), 2),
    "a person answers late": Tale(first(three(gate=ASKS), hold_s=5.0), 3, thinks_s=40.0),
    "a rule asks": Tale(first(three(), health=LOW, stop_after_steps=50), 2),
    "a gate cannot tell": Tale(
        first(three(gate=Gate(loss_drop=LossDrop(10, 40, 50))), stop_after_steps=40),
        2,
        loss=lambda step: 9.0 if step <= 46 else 20.0 / step,
    ),
}
PARTS = 24
DEATHS = [
    pytest.param(
        tale,
        part,
        after,
        # A few deaths of each tale always, and every one of them in the long ones.
        marks=[] if (part, after) == (14, False) else [pytest.mark.long],
        id=f"{name}-{part}-{'after' if after else 'before'}",
    )
    for name, tale in TALES.items()
    for part in range(PARTS)
    for after in (False, True)
]


@pytest.mark.parametrize(("tale", "part", "after"), DEATHS)
def test_a_controller_that_dies_at_any_write_costs_nothing(
    tmp_path: Path, tale: Tale, part: int, after: bool
) -> None:
    count = tale.begin(tmp_path / "count")
    check_climb(count, count.run(meddle=tale.answer()), tale.plan)
    assert (len(count.world.boxes), count.writes > 20) == (tale.boxes, True)
    for at in range(1 + part, count.writes + 1, PARTS):
        story = tale.begin(tmp_path / str(at))
        run = story.run(crash_at=at, after=after, meddle=tale.answer())
        check_climb(story, run, tale.plan)
        assert (run.state, run.reason) == DONE, f"died at write {at}"
        assert (len(run.phases), len(story.world.boxes)) == (3, tale.boxes), f"died at write {at}"


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 60))]
)
def test_any_weather(tmp_path: Path, seed: int) -> None:
    assert climb_through(tmp_path, seed)["violations"] == []


@pytest.mark.parametrize("seed", range(2))
def test_no_go_ends_the_run(tmp_path: Path, seed: int) -> None:
    plan = three(gate=Gate(metrics=(MetricGate("loss", below=0.001),)))
    story = climb(tmp_path, seed, plan)
    run = story.run(meddle=Weather(seed, kills=0))
    check_climb(story, run, plan)
    assert run.outcome and (run.state, run.outcome.code) == ("FAILED", "gate")
    assert len(run.phases) == 1


def test_a_nan_stops_the_trainer_at_once(tmp_path: Path) -> None:
    story, plan = climb(tmp_path), three()
    story.world.loss = lambda step: math.nan if step >= 13 else 9.0 / step
    run = story.run()
    check_climb(story, run, plan)
    assert run.outcome and run.outcome.code in ("gate", "red_flag")
    assert (len(run.attempts), run.attempts[0].why) == (1, "stopped")


@pytest.mark.parametrize(("hold_s", "boxes"), [(600.0, 2), (5.0, 3)], ids=["kept", "given back"])
def test_a_person_is_waited_for(tmp_path: Path, hold_s: float, boxes: int) -> None:
    plan = three(gate=ASKS)
    plan = first(plan, hold_s=hold_s)
    story, asked = climb(tmp_path, 0, plan), list[float]()
    billing = list[int]()

    def answer(story: Story, run: Run) -> None:
        if run.state is RunState.WAITING:
            asked.append(story.world.now_s)
            billing.append(len(story.world.living()))
            if story.world.now_s - asked[0] > 60:
                say(story, run, yes=True)

    run = story.run(meddle=answer)
    check_climb(story, run, plan)
    assert (run.state, run.reason) == DONE
    assert len(story.world.boxes) == boxes
    assert billing[-1] == (1 if hold_s > 60 else 0)


def test_what_nobody_can_tell_waits_for_a_person_and_goes_on(tmp_path: Path) -> None:
    plan = three(gate=Gate(metrics=(MetricGate("eval_loss", below=1.0),)))
    story = climb(tmp_path, 7, plan)
    run = story.run(meddle=Weather(7, kills=0), limit_s=6000)
    check_climb(story, run, plan)
    assert (run.state, run.reason) == DONE
    verdicts = [e.data["verdict"] for e in story.events() if e.kind == "gate.judged"]
    assert verdicts[:2] == ["inconclusive", "GO"]


def test_a_gate_that_cannot_tell_yet_lets_the_same_phase_go_on(tmp_path: Path) -> None:
    plan = three(gate=Gate(loss_drop=LossDrop(10, 40, 50)))
    plan = replace(plan, phases=(replace(plan.phases[0], stop_after_steps=40), *plan.phases[1:]))
    story = climb(tmp_path, 0, plan)
    story.world.loss = lambda step: 9.0 if step <= 46 else 20.0 / step
    run = story.run(limit_s=6000)
    check_climb(story, run, plan)
    assert (run.state, run.reason) == DONE
    extended = next(event for event in story.events() if event.kind == "phase.extended")
    assert extended.data["until_step"] == 50
    first, second, third, *_ = run.attempts
    assert [each.phase for each in (first, second, third)] == [0, 0, 1]
    assert second.resume and second.resume.step in (40, 50) and third.resume


def test_a_no_cancels(tmp_path: Path) -> None:
    plan = three(gate=ASKS)
    story = climb(tmp_path, 3, plan)
    run = story.run(meddle=Weather(3, kills=0, answer=False))
    check_climb(story, run, plan)
    assert (run.state, len(run.phases)) == ("CANCELLED", 1)
    assert "refused by me" in run.reason


def test_nobody_answers_for_a_week(tmp_path: Path) -> None:
    story = climb(tmp_path, 0, three(gate=ASKS))
    story.step_s = 5.0
    sleep = list[bool]()

    def wait(story: Story, run: Run) -> None:
        if run.state is RunState.WAITING and not story.world.living():
            sleep.append(True)
            story.world.clock.advance(6 * 3600)

    run = story.run(meddle=wait, limit_s=9 * 24 * 3600)
    assert run.state == "CANCELLED" and "nobody answered for 7 days" in run.reason
    assert sleep and run.spent_usd(story.world.clock.now()) < 1


def test_a_rule_that_asks_stops_after_the_next_save_and_goes_on_from_it(tmp_path: Path) -> None:
    plan = three()
    plan = first(plan, health=LOW, stop_after_steps=50)
    story = climb(tmp_path, 0, plan)
    run = story.run(meddle=Weather(5, kills=0))
    check_climb(story, run, plan)
    assert (run.state, run.reason) == DONE
    kinds = [event.kind for event in story.events()]
    assert kinds.count("phase.held") == 1
    one, two, *_ = run.attempts
    assert (one.stopping_for, one.phase, two.phase) == ("flag", 0, 0)
    assert two.resume and two.resume.step >= 20
    assert run.phases[0].waived == ("low",)


def test_a_rule_that_stops_ends_the_run(tmp_path: Path) -> None:
    plan = three()
    stops = {"rules": [{"metric": "loss", "below": 0.8, "action": "stop", "name": "low"}]}
    plan = replace(plan, phases=(replace(plan.phases[0], health=stops), *plan.phases[1:]))
    story = climb(tmp_path, 0, plan)
    run = story.run()
    check_climb(story, run, plan)
    assert run.outcome and (run.state, run.outcome.code) == ("FAILED", "red_flag")
    assert RUN in run.id


def test_a_hand_over_that_rotted_here_ends_the_run_after_one_box(tmp_path: Path) -> None:
    """The last phase is told of the final weights; they are not in the mirror any more."""
    story = climb(tmp_path)

    def rot(story: Story, run: Run) -> None:
        start = run.phase.start if run.phase and run.phase.name == "tune" else None
        for mirror in story.mirrors.values():
            mirror.published.pop(start.digest if start else "", None)

    run = story.run(meddle=rot, limit_s=6000)
    check_climb(story, run, three())
    assert run.outcome and (run.state, run.outcome.code) == ("FAILED", "integrity")
    assert "final, which tune starts from, is not what it was" in run.reason
    assert len(story.world.boxes) == 2


@pytest.mark.parametrize("budget_usd", [0.012, 0.025, 0.05])
def test_the_budget_is_of_all_phases_together(tmp_path: Path, budget_usd: float) -> None:
    story = Story(tmp_path, plan=three(), budget_usd=budget_usd)
    run = story.run()
    check_climb(story, run, three())
    assert run.outcome and (run.state, run.outcome.code) == ("FAILED", "budget")
    assert run.spent_usd(story.world.clock.now()) < budget_usd + 0.005
