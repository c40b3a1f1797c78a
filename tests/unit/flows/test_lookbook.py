"""A box's sights and its log beside them: whose line is whose, and what a GPU did during what."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.signatures.faults import Kind
from orchestrator.core.signatures.lifecycle import Doing
from orchestrator.flows import logbook
from orchestrator.flows.lookbook import QUIET_LOOKS, Lookbook

AT = "2026-01-01T00:{:02d}:00Z"
STEP = "Step: {}, LR: 1e-05, Loss: {}, TPS: 100.0\n"


class Case:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[tuple[int, str, bytes]] = []
        self.book = Lookbook(folder, lambda *kept: self.kept.append(kept))
        self.minute = 0

    def saw(self, kind: str, attempt: Any = 1, **data: Any) -> None:
        record = {"v": 1, "kind": kind, "attempt": attempt, "at": AT.format(self.minute), **data}
        with (self.folder / "sights.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def look(self, percent: float, attempt: int = 1, **data: Any) -> None:
        self.minute += 1
        gpus = [{"index": 0, "percent": percent, "used_gb": 10, "total_gb": 80}]
        size = self.folder.joinpath("log").stat().st_size
        told = {"silent_s": 1, "cpu_percent": 50, "disk_bytes_per_s": 0, "log_bytes": size}
        self.saw("machine", attempt, gpus=gpus, **{**told, **data})

    def log(self, text: str) -> None:
        with (self.folder / "log").open("a") as file:
            file.write(text)

    def read(self, newest: int = 1, *, ended: bool = False) -> None:
        while self.book.read(newest, ended=ended):
            pass

    def steps(self, attempt: int = 1) -> list[int | None]:
        log = self.book.page(attempt).log
        return [each.step for each in log.samples] if log else []


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_until_its_beginning_is_known_a_log_is_nobodys(case: Case) -> None:
    case.log(STEP.format(1, 2.5))
    case.read()
    assert case.steps() == []
    case.saw("began", log_from=0)
    case.read()
    assert case.steps() == [1]


def test_last_words_that_come_late_are_those_of_the_attempt_before(case: Case) -> None:
    case.saw("began", log_from=0)
    case.log(STEP.format(1, 2.5))
    case.read()
    case.read(newest=2)
    first = STEP.format(2, 2.4) + "torch.OutOfMemoryError: CUDA out of memory\n"
    case.log(first + STEP.format(2, 2.4))
    size = len(STEP.format(1, 2.5) + first)
    case.saw("began", attempt=2, log_from=size)
    case.read(newest=2)
    one, two = case.book.page(1).log, case.book.page(2).log
    assert one and two
    assert (case.steps(1), case.steps(2)) == ([1, 2], [2])
    assert [each.fault.kind for each in one.faults] == [Kind.GPU_OOM]
    assert two.faults == []


def test_a_gpu_is_seen_together_with_what_was_done_then(case: Case) -> None:
    case.saw("began", log_from=0)
    case.log("Loading checkpoint shards: 50%\n")
    case.look(0)
    case.log(STEP.format(1, 2.5))
    case.look(97)
    case.log("Saving current state to out/step_1\n")
    case.look(3)
    case.look(0, ended=True)
    case.read()
    seen = [(each.percent, each.doing) for each in case.book.page(1).gpus]
    assert seen == [(0, Doing.MODEL_LOAD), (97, Doing.TRAIN), (3, Doing.SAVE), (0, Doing.DONE)]


def test_a_machine_idles_when_it_did_at_the_last_few_looks(case: Case) -> None:
    """Between two bursts of work a GPU shows 0, and a rank's at the barrier of a save 100."""
    case.saw("began", log_from=0)
    case.log("x\n")
    case.look(10, silent_s=3.5)
    case.look(0, silent_s=63.5, cpu_percent=0.1, passed_bytes_per_s=7)
    case.read()
    quiet = case.book.page(1).quiet
    assert quiet
    assert (quiet.silent_s, quiet.gpu_percent, quiet.gpu_least_percent) == (63.5, 10, 0)
    assert (quiet.cpu_percent, quiet.disk_bytes_per_s, quiet.network_bytes_per_s) == (50, 0, 7)
    for _ in range(QUIET_LOOKS):
        case.look(0, cpu_percent=0.1)
    case.read()
    quiet = case.book.page(1).quiet
    assert quiet and (quiet.gpu_percent, quiet.cpu_percent) == (0, 0.1)


def test_a_bar_that_stands_still_is_timed(case: Case) -> None:
    case.saw("began", log_from=0)
    case.log("Caching reference logprobs\r 10%|#         | 1/10 [00:01<00:09,  1.00it/s]\r")
    case.look(90)
    case.log(" 10%|#         | 1/10 [00:01<00:09,  1.00it/s]\r")
    case.look(90)
    case.look(90)
    case.read()
    quiet = case.book.page(1).quiet
    assert quiet and quiet.bar_still_s == 120
    case.log(" 20%|##        | 2/10 [00:01<00:09,  1.00it/s]\r")
    case.look(90)
    case.read()
    quiet = case.book.page(1).quiet
    assert quiet and quiet.bar_still_s == 0


def test_steps_come_from_reports_and_from_llama_factory(case: Case) -> None:
    metrics = [{"name": "current_step", "value": "7"}, {"name": "loss", "value": "nan"}]
    case.saw("report", body={"trainerStatus": {"metrics": metrics}})
    case.saw("trainer_log", lines=['{"current_steps": 9, "loss": 2.0}', "{", 3])
    case.read()
    page = case.book.page(1)
    assert ([s.step for s in page.reports], [s.step for s in page.told]) == ([7], [9])
    assert page.last_step == 9


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def test_a_dump_is_kept_under_a_name_that_is_one(case: Case) -> None:
    case.saw("dump", name="stacks.txt", data=packed(b"main waits"))
    case.saw("dump", name="../../x", data=packed(b"x"))
    case.saw("dump", name="bomb", data=packed(b"0" * 2**24))
    case.saw("dump", name="bad", data="no base64!")
    case.saw("dump", name="worse", data=base64.b64encode(b"no zlib").decode())
    case.read()
    assert [(name, len(data)) for _, name, data in case.kept] == [
        ("stacks.txt", 10),
        ("bomb", 2**23),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {}, {"kind": "machine"}, {"kind": "machine", "attempt": 1, "at": 3},
        {"kind": "machine", "attempt": 99, "at": AT.format(1)},
        {"kind": "began", "attempt": 1, "at": AT.format(1), "log_from": -1},
        {"kind": "began", "attempt": True, "at": AT.format(1), "log_from": 0},
        {"kind": "machine", "attempt": 1, "at": AT.format(1), "gpus": [3, {"index": "x"}],
         "silent_s": "inf", "log_bytes": 10**30},
        {"kind": "file", "attempt": 1, "at": AT.format(1), "name": "/etc/x", "data": {}},
        {"kind": "file", "attempt": 1, "at": AT.format(1), "name": "x", "data": [1]},
        {"kind": "report", "attempt": 1, "at": AT.format(1), "body": [1]},
        {"kind": "trainer_log", "attempt": 1, "at": AT.format(1), "lines": "x"},
        {"kind": "dump", "attempt": 1, "at": AT.format(1)},
    ],
    ids=range(12),
)  # fmt: skip
def test_what_a_box_may_not_say_is_passed_over(case: Case, record: dict[str, Any]) -> None:
    with (case.folder / "sights.jsonl").open("w") as file:
        file.write(json.dumps(record) + "\n\xff\n[1]\n" + "[" * 100_000 + "\n")
    case.saw("file", name="eval/a.json", data={"loss": 1})
    case.read()
    assert {name: data for name, (_, data) in case.book.files.items()} == {
        "eval/a.json": {"loss": 1}
    }
    assert case.kept == [] and list(case.book.page(1).gpus) == []


def test_of_a_log_that_runs_away_the_middle_is_passed_over(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "READ_BYTES", 4096)
    monkeypatch.setattr(logbook, "FAR_BEHIND", 40_000)
    case.saw("began", log_from=0)
    case.log("".join(STEP.format(step, 2.5) for step in range(1, 5000)))
    case.read()
    steps = case.steps()
    assert steps[-1] == 4999 and 100 < len(steps) < 1500
