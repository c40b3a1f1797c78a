"""What the daemon makes of logs, machines and files: flags and gates beyond the curve."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
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
    gone,
    intended,
    lost,
    mirrored,
    prepared,
    run_of,
    running,
    sealed,
    settled,
    started,
    terminating,
)
from kit.plans import phase_plan, plan_of

from orchestrator.core.actions import Deadlines
from orchestrator.core.gate import EvaluationGate, Gate, GateVerdict
from orchestrator.core.offer import Offer
from orchestrator.core.plan import CheckpointPlan, ResumePlan
from orchestrator.core.redact import Redactor
from orchestrator.flows.evidence import JUDGE_S, Heard, Witness

RESUMES = CheckpointPlan("out", "huggingface", "/mirror", ResumePlan("--from {checkpoint}", {}, ""))
GPU = Offer("local", "cpu-2", "H100", 2, 2, 8, 20, 1.0)
STEP = "Step: {}, LR: 1e-05, Loss: {}, TPS: 100.0\n"
ON = (begun(key="k"), *TRAINING)


class World:
    deadlines = Deadlines()

    def __init__(self) -> None:
        self.clock = ManualClock()


class Hold:
    """As much of a hold as the witness asks."""

    redactor = Redactor(["hush-hush"])

    def __init__(self, folder: Path, **phase: Any) -> None:
        self.folder = folder
        self.world = World()
        self.plan = plan_of(phase_plan(key="k", **phase))

    def phase(self, run: Any) -> Any:
        return self.plan.phases[0]


class Case:
    def __init__(self, folder: Path, **phase: Any) -> None:
        self.folder = folder / BOX
        self.folder.mkdir()
        self.hold = Hold(folder, **phase)
        self.witness = Witness(self.hold)  # type: ignore[arg-type]

    def log(self, text: str) -> None:
        with (self.folder / "log").open("a") as file:
            file.write(text)

    def saw(self, kind: str, attempt: int = 1, now_s: float = 0, **data: Any) -> None:
        record = {"v": 1, "kind": kind, "attempt": attempt, "at": at(now_s).isoformat(), **data}
        with (self.folder / "sights.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def quiet(self, silent_s: float, cpu: float = 0.0, **data: Any) -> None:
        told = {"silent_s": silent_s, "cpu_percent": cpu, "disk_bytes_per_s": 0, "gpus": None}
        self.saw("machine", **{**told, "now_s": silent_s, **data})

    def look(self, *told: Told, now_s: float = 100) -> Heard:
        for _ in range(3):
            self.hold.world.clock.advance(JUDGE_S + 1)
            heard = self.witness.look(run_of(*told), at(now_s))
        return heard


def acting(heard: Heard) -> set[tuple[str, str | None]]:
    return {(each.rule, each.action) for each in heard.flags}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_steps_that_are_only_printed_are_heard_and_judged(case: Case) -> None:
    case.saw("began", log_from=0)
    case.log("".join(STEP.format(step, 9.0 / step) for step in range(1, 30)))
    case.log(STEP.format(30, "nan"))
    heard = case.look(*ON)
    assert heard.step == 30
    assert ("M5", "stop") in acting(heard)


def test_the_metrics_are_believed_before_the_log(case: Case) -> None:
    case.saw("began", log_from=0)
    case.log(STEP.format(1, "nan"))
    (case.folder / "metrics.jsonl").write_text('{"v": 1, "step": 1, "loss": 2.5}\n')
    assert ("M5", "stop") not in acting(case.look(*ON))


@pytest.mark.parametrize(
    ("silent_s", "cpu", "hang_s", "fires"),
    [(1300, 0.0, 1200, True), (1300, 90.0, 1200, False), (1100, 0.0, 1200, False),
     (400, 0.0, 300, True)],
    ids=["silent and idle", "silent and at work", "not yet", "sooner where asked"],
)  # fmt: skip
def test_a_hang(tmp_path: Path, silent_s: float, cpu: float, hang_s: float, fires: bool) -> None:
    case = Case(tmp_path, hang_s=hang_s)
    case.saw("began", log_from=0)
    case.log(STEP.format(1, 2.5))
    case.quiet(silent_s, cpu)
    assert (("M7", "restart") in acting(case.look(*ON))) is fires


def test_a_machine_whose_gpus_nobody_sees_is_not_idle(tmp_path: Path) -> None:
    case = Case(tmp_path, hang_s=300, offers=(GPU,))
    case.saw("began", log_from=0)
    case.log(STEP.format(1, 2.5))
    case.quiet(4000)
    assert ("M7", "restart") not in acting(case.look(*ON))


def test_what_comes_before_training_may_take_longer(tmp_path: Path) -> None:
    case = Case(tmp_path, hang_s=300)
    case.saw("began", log_from=0)
    case.log("Map:  10%|#         | 1/10\n")
    case.quiet(1000)
    assert ("M7", "restart") not in acting(case.look(*ON))


def test_a_trainer_that_is_being_stopped_does_not_hang(tmp_path: Path) -> None:
    case = Case(tmp_path, hang_s=300)
    case.saw("began", log_from=0)
    case.log(STEP.format(1, 2.5))
    case.quiet(4000)
    halted = ("attempt.stopping", {"attempt": 1, "why": "hang", "step": None})
    assert ("M7", "restart") not in acting(case.look(*ON, halted))


CRASH = (*ON, sealed(30), mirrored(30), exited(rc=1, why="crash"), settled())
AGAIN = (*CRASH, attempt(2, resume=30), started(2))


@pytest.mark.parametrize(
    ("lines", "plan", "fires"),
    [
        (STEP.format(1, 9.0), RESUMES, True),
        (STEP.format(31, 0.29), RESUMES, False),
        (STEP.format(30, 0.3) + STEP.format(31, 0.29), RESUMES, False),
        (STEP.format(1, 9.0), replace(RESUMES, resume=ResumePlan("", {}, "")), False),
    ],
    ids=["from scratch", "resumed", "counts from 0", "was never told to"],
)
def test_a_resume_that_began_from_scratch(
    tmp_path: Path, lines: str, plan: CheckpointPlan, fires: bool
) -> None:
    case = Case(tmp_path, checkpoints=plan)
    case.saw("began", log_from=0)
    first = "".join(STEP.format(step, 9.0 / step) for step in range(1, 36))
    case.log(first)
    case.look(*CRASH)
    case.saw("began", 2, log_from=len(first))
    case.log(lines)
    assert (("M23", "stop") in acting(case.look(*AGAIN))) is fires


OTHER = "demo-1-2"
MOVED = (
    *(*ON, lost(), terminating(), gone(), intended(OTHER), created(OTHER), running(OTHER)),
    *(prepared(OTHER), attempt(2, OTHER), started(2)),
)
OOM = "torch.OutOfMemoryError: CUDA out of memory\n"


def test_an_error_that_the_trainer_outlives_is_a_flag(case: Case) -> None:
    case.saw("began", log_from=0)
    case.quiet(0)
    case.log(OOM)
    assert ("M4", "stop") not in acting(case.look(*ON)), "it may be dying of it"
    case.quiet(0, now_s=300)
    assert ("M4", "stop") in acting(case.look(*ON))


def outlived(case: Case, lines: str, after: str = "") -> set[tuple[str, str | None]]:
    """What fires once the trainer has lived on for minutes after these lines."""
    case.saw("began", log_from=0)
    case.quiet(0)
    case.log(lines)
    case.look(*ON)
    case.quiet(0, now_s=300)
    case.log(after)
    return acting(case.look(*ON))


NCCL = "ncclSystemError: retrying\n"


@pytest.mark.parametrize(("line", "rule"), [(OOM, "M4"), (NCCL, "M11")], ids=["memory", "nccl"])
def test_an_error_that_steps_come_after_stops_nobody(tmp_path: Path, line: str, rule: str) -> None:
    """Somebody caught it: a batch that was halved, a connection that was made again."""
    case = Case(tmp_path, offers=(GPU,))
    assert (rule, "stop") in outlived(case, STEP.format(1, 2.5) + line)
    case.log(STEP.format(2, 2.5) + STEP.format(3, 2.5))
    assert "stop" not in {action for _, action in acting(case.look(*ON))}


def test_steps_of_another_box_do_not_say_that_an_error_was_outlived(tmp_path: Path) -> None:
    """Its log was longer: a place in it says nothing of one in this box's."""
    case = Case(tmp_path)
    case.saw("began", log_from=0)
    case.log("".join(STEP.format(step, 9.0 / step) for step in range(1, 31)))
    case.look(*ON)
    case.folder = tmp_path / OTHER
    case.folder.mkdir()
    case.saw("began", 2, log_from=0)
    case.quiet(0, attempt=2)
    case.log(OOM)
    case.look(*MOVED)
    case.quiet(0, attempt=2, now_s=300)
    assert ("M4", "stop") in acting(case.look(*MOVED))


@pytest.mark.parametrize(
    "line",
    ["sh: 3: nvcc: command not found\n", "OSError: [Errno 98] Address already in use\n"],
    ids=["a tool", "a port"],
)
def test_what_only_kills_at_times_is_no_flag_while_it_lives(tmp_path: Path, line: str) -> None:
    found = outlived(Case(tmp_path, offers=(GPU,)), line + "Loading checkpoint shards:  50%\n")
    assert "stop" not in {action for _, action in found}


@pytest.mark.parametrize(("wish", "action"), [("stop", "warn"), ("ask", "ask")])
def test_what_a_trainer_ended_of_its_end_says(tmp_path: Path, wish: str, action: str) -> None:
    case = Case(tmp_path, health={"oom": wish})
    case.saw("began", log_from=0)
    case.log(OOM)
    ended = (*ON, exited(rc=1, why="oom"))
    assert ("M4", action) in acting(case.look(*ended))


@pytest.mark.parametrize(
    ("command", "gpus", "fires"),
    [("deepspeed train.py", 2, True), ("torchrun train.py", 2, False),
     ("deepspeed train.py", 1, False), ("torchrun train.py --deepspeed=null", 2, False),
     ("# not with deepspeed\ntorchrun train.py", 2, False)],
)  # fmt: skip
def test_only_who_asked_for_zero_has_to_have_it(
    tmp_path: Path, command: str, gpus: int, fires: bool
) -> None:
    offers = (replace(GPU, count=gpus),)
    case = Case(tmp_path, command=command, setup="pip install deepspeed", offers=offers)
    case.saw("began", log_from=0)
    case.log("DistributedType.MULTI_GPU  Backend: nccl\n" + STEP.format(1, 2.5))
    assert (("M10", "stop") in acting(case.look(*ON))) is fires


VERL = (
    "(Task pid=1) step:{} - critic/d_loss:0.4 - critic/d_acc:{} - actor/lr:{} - actor/pg_loss:0\n"
)


@pytest.mark.parametrize("rate", [1e-6, 5e-6])
def test_users_own_verl_is_judged_as_what_it_tells(tmp_path: Path, rate: float) -> None:
    """Its own commands name no method: a discriminator that is saturated was never seen."""
    case = Case(tmp_path, gate=Gate(no_red_flags=True))
    case.saw("began", log_from=0)
    case.log("".join(VERL.format(step, 0.97, rate) for step in range(1, 130)))
    heard = case.look(*DONE)
    found = acting(heard)
    assert ("G7", "warn") in found
    assert (("G3", "warn") in found) is (rate != 1e-6), "another rate may be meant"
    assert heard.gate and heard.gate.verdict is GateVerdict.GO


def test_preferences_that_do_not_begin_at_ln_2_are_told(tmp_path: Path) -> None:
    """The wrong reference: nothing else shows it, and open-instruct tells no method."""
    case = Case(tmp_path)
    case.saw("began", log_from=0)
    case.log("Loading reference logprobs cache from /x/6f.pt\n" + STEP.format(1, 0.61))
    assert ("M17", "warn") in acting(case.look(*ON))


@pytest.mark.parametrize("named", ["M10", "not_distributed"])
@pytest.mark.parametrize("line", ["After initializing ZeRO optimizer\n", ""])
def test_a_gate_that_requires_ranks_has_zero_judged(tmp_path: Path, named: str, line: str) -> None:
    """jobs/mahals/ladder.yaml asks by the flag, and its command says nothing of DeepSpeed. ZeRO's
    own line comes minutes after the first one."""
    case = Case(tmp_path, command="sh train.sh", offers=(GPU,), gate=Gate(require=(named,)))
    case.saw("began", log_from=0)
    case.log("DistributedType.DEEPSPEED  Backend: nccl\nNum processes: 2\n" + line)
    heard = case.look(*ON)
    assert "stop" not in {action for _, action in acting(heard)}
    case.log(STEP.format(1, 2.5))
    heard = case.look(*ON)
    assert heard.gate
    found = {reason.part: str(reason.verdict) for reason in heard.gate.reasons}
    assert found[f"require {named}"] == ("pass" if line else "unobservable")


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [(Gate(no_red_flags=True), GateVerdict.GO),
     (Gate(no_red_flags=True, require=("S14",)), GateVerdict.NO_GO)],
    ids=["nobody asked", "the study asks"],
)  # fmt: skip
def test_gpus_at_seventy_percent_are_one_studys_no_go(
    tmp_path: Path, gate: Gate, verdict: GateVerdict
) -> None:
    case = Case(tmp_path, offers=(GPU,), gate=gate, stop_after_steps=60)
    case.saw("began", log_from=0)
    case.log(STEP.format(1, 2.5))
    gpus = [{"index": index, "percent": 70, "used_gb": 60, "total_gb": 80} for index in (0, 1)]
    for second in range(12):
        case.quiet(0, gpus=gpus, log_bytes=100, now_s=second)
    case.log("".join(STEP.format(step, 2.5 - step / 100) for step in range(2, 61)))
    heard = case.look(*DONE, now_s=200)
    assert heard.gate and heard.gate.verdict is verdict, heard.gate


DONE = (*ON, exited(), sealed(60), sealed(60, final=True), settled())


@pytest.mark.parametrize(
    ("found", "base", "verdict"),
    [(0.1, 0.2, GateVerdict.GO), (0.2, 0.1, GateVerdict.NO_GO),
     (None, 0.2, GateVerdict.INCONCLUSIVE)],
)  # fmt: skip
def test_a_gate_on_an_evaluation(
    tmp_path: Path, found: float | None, base: float, verdict: GateVerdict
) -> None:
    gate = Gate(evaluation=EvaluationGate("eval/now.json", "eval_loss", "base.json", 5.0))
    case = Case(tmp_path, gate=gate)
    case.saw("file", name="base.json", data={"eval_loss": base})
    if found is not None:
        case.saw("file", name="eval/now.json", data={"eval_loss": found})
    heard = case.look(*DONE)
    assert heard.gate and heard.gate.verdict is verdict


def test_a_dump_is_put_beside_the_log_without_secrets(case: Case) -> None:

    data = base64.b64encode(zlib.compress(b"token=hush-hush")).decode()
    case.saw("dump", name="stacks.txt", data=data)
    case.look(*ON)
    text = (case.folder / "hang-1" / "stacks.txt").read_text()
    assert "token=" in text and "hush-hush" not in text


def test_gpus_that_idle_are_a_warning(tmp_path: Path) -> None:
    case = Case(tmp_path, offers=(GPU,))
    case.saw("began", log_from=0)
    case.log(STEP.format(1, 2.5))
    gpus = [{"index": index, "percent": 5, "used_gb": 1, "total_gb": 80} for index in (0, 1)]
    for second in range(12):
        case.quiet(0, gpus=gpus, log_bytes=100, now_s=second)
    assert ("F2", "warn") in acting(case.look(*ON))
