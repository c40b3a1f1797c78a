"""What the daemon knows of a phase: from metrics that boxes told, and from checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.clock import ManualClock
from kit.history import (
    BOX,
    TRAINING,
    Told,
    at,
    attempt,
    begun,
    exited,
    mirrored,
    prepared,
    run_of,
    sealed,
    settled,
    started,
)
from kit.plans import phase_plan, plan_of

from orchestrator.core.actions import Deadlines
from orchestrator.core.gate import Gate, GateVerdict, LossDrop, MetricGate
from orchestrator.core.run import Run
from orchestrator.flows.evidence import JUDGE_S, KEPT, Heard, Witness

DROP = Gate(loss_drop=LossDrop(10, 40))
BELOW = Gate(metrics=(MetricGate("loss", below=1.0),))


class World:
    deadlines = Deadlines()

    def __init__(self) -> None:
        self.clock = ManualClock()


class Hold:
    """As much of a hold as the witness asks."""

    def __init__(self, folder: Path, gate: Gate | None, **phase: Any) -> None:
        self.folder = folder
        self.world = World()
        self.plan = plan_of(phase_plan(gate=gate, key="k", **phase), phase_plan(name="next"))

    def phase(self, run: Run) -> Any:
        return self.plan.phases[run.phase.index if run.phase else 0]


class Case:
    def __init__(self, folder: Path, gate: Gate | None = DROP, **phase: Any) -> None:
        self.folder = folder / BOX
        self.folder.mkdir()
        self.hold = Hold(folder, gate, **phase)
        self.witness = Witness(self.hold)  # type: ignore[arg-type]

    def tell(
        self,
        steps: range,
        loss: Callable[[int], float] = lambda step: 9.0 / step,
        **more: Any,
    ) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            for step in steps:
                file.write(json.dumps({"v": 1, "step": step, "loss": loss(step), **more}) + "\n")

    @property
    def size(self) -> int:
        path = self.folder / "metrics.jsonl"
        return path.stat().st_size if path.exists() else 0

    def look(self, *told: Told, later_s: float = JUDGE_S + 1, now_s: float = 100) -> Heard:
        self.hold.world.clock.advance(later_s)
        return self.witness.look(run_of(*told), at(now_s))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


ON = (begun(key="k", until_step=40), *TRAINING)


def verdict(heard: Heard) -> GateVerdict | None:
    return heard.gate.verdict if heard.gate else None


def test_before_anything_is_told_nobody_can_say(case: Case) -> None:
    heard = case.look(*ON)
    assert (heard.step, verdict(heard), heard.flags) == (None, GateVerdict.WAITING, ())


def test_steps_are_heard_as_they_come_and_the_gate_judged_at_its_step(case: Case) -> None:
    case.tell(range(1, 31))
    heard = case.look(*ON)
    assert (heard.step, verdict(heard)) == (30, GateVerdict.WAITING)
    case.tell(range(31, 45))
    heard = case.look(*ON)
    assert (heard.step, verdict(heard)) == (44, GateVerdict.GO)
    assert heard.gate and heard.gate.key == "k"


def test_a_step_is_heard_at_once_and_judged_in_turn(case: Case) -> None:
    case.tell(range(1, 30))
    case.look(*ON)
    case.tell(range(30, 60))
    soon = case.look(*ON, later_s=0.25)
    assert (soon.step, verdict(soon)) == (59, GateVerdict.WAITING)
    assert verdict(case.look(*ON)) is GateVerdict.GO, (
        "what was new is judged although nothing more came"
    )


def test_a_torn_line_is_read_once_it_is_whole(case: Case) -> None:
    case.tell(range(1, 4))
    path = case.folder / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert case.look(*ON).step == 2
    path.write_bytes(whole)
    assert case.look(*ON).step == 3


def test_a_flat_run_is_no_go(case: Case) -> None:
    case.tell(range(1, 45), lambda step: 2.0)
    assert verdict(case.look(*ON)) is GateVerdict.NO_GO


def test_a_nan_is_no_go_at_once_and_a_red_flag(case: Case) -> None:
    case.tell(range(1, 6), lambda step: math.nan if step == 5 else 2.0)
    heard = case.look(*ON)
    assert verdict(heard) is GateVerdict.NO_GO
    assert [(each.flag, each.action) for each in heard.flags] == [("nan", "stop")]


def test_what_the_job_file_says_of_a_flag_is_done(tmp_path: Path) -> None:
    case = Case(tmp_path, None, health={"nan": "ask", "rules": [{"metric": "loss", "above": 1.5}]})
    case.tell(range(1, 6), lambda step: math.nan if step == 5 else 2.0)
    found = {each.flag: each.action for each in case.look(*ON).flags}
    assert found == {"nan": "ask", "rules": "warn"}


def test_what_an_earlier_phase_told_on_the_same_box_is_not_this_ones(case: Case) -> None:
    case.tell(range(1, 61))
    done = (*ON, sealed(60), exited(), sealed(60, final=True), settled())
    second = begun("next", 1, instance=BOX)
    told = attempt(2)[1] | {"metrics_from": case.size}
    later = (*done, second, prepared(), ("attempt.intended", told), started(2))
    assert case.look(*later).step is None
    case.tell(range(1, 4))
    assert case.look(*later).step == 3


def test_a_line_that_comes_late_names_its_attempt(case: Case) -> None:
    done = (*ON, sealed(60), exited(), sealed(60, final=True), settled())
    told = attempt(2)[1] | {"metrics_from": 0}
    later = (*done, begun("next", 1, instance=BOX), prepared(), ("attempt.intended", told))
    case.tell(range(50, 61), attempt=1)
    case.tell(range(1, 3), attempt=2)
    assert case.look(*later, started(2)).step == 2


def test_an_attempt_that_goes_back_has_not_made_the_steps_before_it(case: Case) -> None:
    case.tell(range(1, 36))
    crash = (*ON, sealed(30), exited(rc=1, why="crash"), settled())
    told = attempt(2, resume=30)[1] | {"metrics_from": case.size}
    later = (*crash, ("attempt.intended", told), started(2))
    assert case.look(*later).step is None
    case.tell(range(31, 33))
    assert case.look(*later).step == 32


def test_steps_before_a_hand_over_are_not_judged(tmp_path: Path) -> None:
    case = Case(tmp_path, BELOW)
    handed = {"name": "checkpoint-20", "step": 20, "digest": "d"}
    on = (begun(key="k", start=handed, how="resume"), *TRAINING)
    case.tell(range(1, 21), lambda step: math.nan)
    assert verdict(case.look(*on)) is GateVerdict.WAITING
    case.tell(range(21, 24))
    assert case.look(*on).step == 23


def test_without_metrics_a_checkpoint_tells_its_own_past(tmp_path: Path) -> None:
    case = Case(tmp_path, BELOW)
    folder = tmp_path / "mirror" / "checkpoint-40"
    folder.mkdir(parents=True)
    history = [{"step": step, "loss": 9.0 / step} for step in range(1, 41)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    here = mirrored(40)[1] | {"path": str(folder)}
    done = (
        *ON,
        sealed(40),
        exited(rc=143, why="stopped"),
        settled(),
        ("checkpoint.mirrored", here),
    )
    assert verdict(case.look(*done)) is GateVerdict.GO


def test_the_last_words_of_a_trainer_are_waited_for(case: Case) -> None:
    case.tell(range(1, 30))
    done = (*ON, sealed(40), exited(rc=143, why="stopped"), settled())
    over_s = len(done) - 1
    assert verdict(case.look(*ON, now_s=over_s)) is GateVerdict.WAITING
    assert case.look(*done, now_s=over_s).gate is None
    case.tell(range(30, 45))
    assert case.look(*done, now_s=over_s + 1, later_s=0.25).gate is None
    assert verdict(case.look(*done, now_s=over_s + 4, later_s=0.25)) is GateVerdict.GO


def test_what_nobody_can_tell_a_person_may(tmp_path: Path) -> None:
    case = Case(tmp_path, BELOW)
    done = (*ON, sealed(40), exited(rc=143, why="stopped"), settled())
    held = "phase.held", {"phase": "main", "why": "gate", "reason": "x", "rules": []}
    said = "requested.approve", {"phase": "main", "yes": True, "by": "me"}
    assert verdict(case.look(*done)) is GateVerdict.INCONCLUSIVE
    assert verdict(case.look(*done, held)) is GateVerdict.INCONCLUSIVE
    assert verdict(case.look(*done, held, said)) is GateVerdict.GO


def test_of_a_run_that_ends_nothing_is_asked(case: Case) -> None:
    case.tell(range(1, 6), lambda step: math.nan)
    end = "drain.begun", {"outcome": "FAILED", "reason": "x", "code": "gate"}
    assert case.look(*ON, end) == Heard()


def test_a_long_run_is_kept_at_both_ends_with_what_was_no_number(case: Case) -> None:
    odd = KEPT + 50
    case.tell(range(1, 3 * KEPT), lambda step: math.inf if step == odd else 2.0)
    heard = case.look(*ON)
    assert heard.step == 3 * KEPT - 1
    first = heard.flags[0]
    assert (first.flag, first.action) == ("nan", "stop")


@pytest.mark.parametrize("begin", [100, KEPT + 100], ids=["kept whole", "passed over"])
def test_updates_that_were_left_out_hours_apart_are_no_row(case: Case, begin: int) -> None:
    """verl leaves an update out now and then; of a long run the steps between are not kept."""
    case.tell(range(1, begin), grad_norm=1.0)
    for index in range(8):
        step = begin + 100 * index
        case.tell(range(step, step + 1), grad_norm=math.nan)
        case.tell(range(step + 1, step + 100), grad_norm=1.0)
    case.tell(range(begin + 800, 3 * KEPT), grad_norm=1.0)
    heard = case.look(*ON)
    assert heard.step == 3 * KEPT - 1
    assert "nan" not in {each.flag for each in heard.flags}


def test_lines_that_are_none_are_passed_over(case: Case) -> None:
    (case.folder / "metrics.jsonl").write_bytes(
        b'{"attempt": [\n\xff\xfe\n[1]\n{"attempt": 1, "step": 7, "loss": 1}\n{"attempt": 9}\n'
    )
    assert case.look(*ON).step == 7
