"""What an earlier phase of a run tells the rules of the one that runs now."""

from __future__ import annotations

import json
from datetime import timedelta
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
    created,
    exited,
    intended,
    prepared,
    run_of,
    running,
    sealed,
    settled,
    started,
)
from kit.plans import phase_plan, plan_of

from orchestrator.core.actions import Deadlines
from orchestrator.core.gate import EvaluationGate, Gate
from orchestrator.core.health.rule import Verdict
from orchestrator.core.offer import Offer
from orchestrator.core.redact import Redactor
from orchestrator.core.run import Run
from orchestrator.core.settings import Batch
from orchestrator.flows.evidence import JUDGE_S, Witness

ONE = Offer("local", "one", "A100", 1, 2, 8, 20, 1.0)
TWO = Offer("local", "two", "A100", 2, 2, 8, 20, 2.0)
OTHER = Offer("local", "other", "H100", 2, 2, 8, 20, 2.0)
LATER = "demo-1-2"
FIRST = (
    begun("sanity", key="k", until_step=40),
    intended(BOX, ONE), created(), running(), prepared(), attempt(), started(),
    sealed(40), exited(rc=143, why="stopped"), settled(),
)  # fmt: skip


def then(offer: Offer, index: int = 1) -> tuple[Told, ...]:
    box = (intended(LATER, offer), created(LATER), running(LATER), prepared(LATER))
    second = ("attempt.intended", attempt(2, LATER)[1] | {"metrics_from": 0})
    return (*FIRST, begun("sharded", index), *box, second, started(2))


class World:
    deadlines = Deadlines()

    def __init__(self) -> None:
        self.clock = ManualClock()


class Hold:
    """As much of a hold as the witness asks."""

    redactor = Redactor([])

    def __init__(self, folder: Path, *phases: Any) -> None:
        self.folder = folder
        self.world = World()
        self.plan = plan_of(*phases)

    def phase(self, run: Run) -> Any:
        return self.plan.phases[run.phase.index if run.phase else 0]


def tell(
    folder: Path, box: str, attempt: int, *, step_s: float, tokens_per_s: float | None
) -> None:
    (folder / box).mkdir(exist_ok=True)
    with (folder / box / "metrics.jsonl").open("a") as file:
        for step in range(1, 31):
            told = {"v": 1, "attempt": attempt, "step": step, "loss": 9.0 / step}
            told["at"] = (at(0) + timedelta(seconds=step * step_s)).isoformat()
            told |= {"tokens_per_s": tokens_per_s} if tokens_per_s else {}
            file.write(json.dumps(told) + "\n")


def judged(hold: Hold, rule: str, *told: Told) -> tuple[Verdict | None, str]:
    """The rule's verdict and words, as a flag or as its gate's reason; None is not judged."""
    witness = Witness(hold)  # type: ignore[arg-type]
    for _ in range(2):
        hold.world.clock.advance(JUDGE_S + 1)
        heard = witness.look(run_of(*told), at(100))
    flag = next((each for each in heard.flags if each.rule == rule), None)
    if flag:
        return flag.verdict, flag.evidence.words
    assert heard.gate
    reason = next(each for each in heard.gate.reasons if each.part == f"require {rule}")
    is_judged = reason.words.startswith(rule)
    return reason.verdict if is_judged else None, reason.words.removeprefix(f"{rule}: ")


def ladder(folder: Path, **second: Any) -> Hold:
    gate = Gate(require=("M8b", "M21", "S22"))
    both: dict[str, Any] = {"batch": Batch(1, 16), "gate": gate}
    first = phase_plan(name="sanity", offers=(ONE,), stop_after_steps=40, **both)
    plan = {"name": "sharded", "offers": (TWO, OTHER), **both, **second}
    return Hold(folder, first, phase_plan(**plan))


@pytest.mark.parametrize(
    ("rates", "step_s", "verdict", "words"),
    [
        ((2000.0, 2360.0), (10, 10), Verdict.WARN, "59 % of the tokens/s"),
        ((2000.0, 2600.0), (10, 10), Verdict.PASS, "65 % of the tokens/s"),
        ((None, None), (10, 20), Verdict.WARN, "50 % of the rows/s"),
        ((None, 2600.0), (10, 12), Verdict.PASS, "83 % of the rows/s"),
    ],
)
def test_a_rung_is_as_fast_a_gpu_as_the_one_before(
    tmp_path: Path, rates: Any, step_s: Any, verdict: Verdict, words: str
) -> None:
    tell(tmp_path, BOX, 1, step_s=step_s[0], tokens_per_s=rates[0])
    tell(tmp_path, LATER, 2, step_s=step_s[1], tokens_per_s=rates[1])
    found, said = judged(ladder(tmp_path), "M8b", *then(TWO))
    assert (found, said[: len(words)]) == (verdict, words)


def test_the_rung_before_has_half_the_rows(tmp_path: Path) -> None:
    found, said = judged(ladder(tmp_path), "M21", *then(TWO))
    assert found is Verdict.WARN
    assert said.startswith("32 rows a step, 16 on the rung before: compare by rows")
    assert "accumulation 8 is equal" in said
    equal = ladder(tmp_path, batch=Batch(1, 8))
    assert judged(equal, "M21", *then(TWO))[0] is Verdict.PASS


def test_another_kind_of_gpu_is_no_measure(tmp_path: Path) -> None:
    tell(tmp_path, BOX, 1, step_s=10, tokens_per_s=2000.0)
    tell(tmp_path, LATER, 2, step_s=10, tokens_per_s=100.0)
    hold = ladder(tmp_path)
    assert judged(hold, "M8b", *then(OTHER))[0] is Verdict.UNOBSERVABLE
    assert judged(hold, "M21", *then(OTHER))[0] is Verdict.WARN, "rows are rows"


@pytest.mark.parametrize("rule", ["M8b", "M21"])
def test_another_trainer_is_no_rung_and_a_first_phase_has_none(tmp_path: Path, rule: str) -> None:
    assert judged(ladder(tmp_path, command="dpo {resume}"), rule, *then(TWO))[0] is None
    assert judged(ladder(tmp_path), rule, *FIRST[:7])[0] is None


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [(None, None), ((), Verdict.PASS), (("learning_rate",), Verdict.FAIL)],
)
def test_what_a_full_run_has_otherwise(
    tmp_path: Path, changed: Any, verdict: Verdict | None
) -> None:
    assert judged(ladder(tmp_path, changed=changed), "S22", *then(TWO))[0] == verdict


@pytest.mark.parametrize(("percent", "verdict"), [(2.0, Verdict.INCONCLUSIVE), (5.0, Verdict.FAIL)])
def test_an_evaluation_is_asked_for_what_its_gate_asks(
    tmp_path: Path, percent: float, verdict: Verdict
) -> None:
    """3 % better: a red flag only where more is asked."""
    asked = EvaluationGate("now.json", "wasserstein", "base.json", percent)
    hold = Hold(tmp_path, phase_plan(gate=Gate(evaluation=asked, require=("S3",)), key="k"))
    (tmp_path / BOX).mkdir()
    with (tmp_path / BOX / "sights.jsonl").open("w") as file:
        for name, value in (("base.json", 0.2), ("now.json", 0.194)):
            told = {"v": 1, "kind": "file", "attempt": 1, "at": at(0).isoformat()}
            told |= {"name": name, "data": {"wasserstein": value}}
            file.write(json.dumps(told) + "\n")
    assert judged(hold, "S3", begun(key="k"), *TRAINING)[0] is verdict
