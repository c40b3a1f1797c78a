"""What the agent sees beside the log: silence, the machine, reports, files, and a hang."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.clock import ManualClock

from remote.agent import dump as dumping
from remote.agent.attempt import Attempt
from remote.agent.lookout import LOOKS_AFTER, Lookout
from remote.agent.machine import Load, parse_gpus
from remote.agent.paths import Root
from remote.agent.procs import Process
from remote.agent.reports import TOKEN, URL, Receiver, report_env
from remote.agent.sights import Sights
from remote.agent.spec import Spec
from remote.contract import ContractError

GPUS = [{"index": 0, "percent": 93.0, "used_gb": 20.0, "total_gb": 80.0}]


def lines(root: Root, kind: str = "") -> list[dict[str, Any]]:
    text = root.sights.read_text() if root.sights.exists() else ""
    told = [json.loads(line) for line in text.splitlines()]
    return [each for each in told if kind in ("", each["kind"])]


@contextmanager
def sleeper(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(words or ("sleep", "60"))
    try:
        yield child
    finally:
        child.kill()
        child.wait()


class Case:
    """An attempt on a box of its own, whose trainer is the process `pid`."""

    def __init__(self, folder: Path, pid: int, number: int = 1, **spec: Any) -> None:
        self.root, self.work = Root(folder / "root"), folder / "work"
        self.work.mkdir(exist_ok=True)
        self.attempt = Attempt(self.root, number)
        self.attempt.folder.mkdir(parents=True, exist_ok=True)
        record = {
            "v": 1, "instance": "box-1", "attempt": number, "workdir": str(self.work),
            "command": "x", "env": {}, "secrets": False, "checkpoints": "out", "layout": "auto",
            "world_size": 1, "resume_step": None, **spec,
        }  # fmt: skip
        (self.attempt.folder / "spec.json").write_text(json.dumps(record))
        (self.attempt.folder / "baseline.json").write_text('{"v": 1, "log": 7}')
        trainer = Process.of(pid)
        assert trainer
        (self.attempt.folder / "pid").write_text(json.dumps({"v": 1, **trainer.to_json()}))
        assert self.attempt.claim()
        self.clock = ManualClock()
        self.sights = Sights(self.root.sights)
        self.lookout = Lookout(
            self.root, self.sights, clock=self.clock.monotonic, gpus=lambda: list(GPUS)
        )
        self.lookout.watch(self.attempt)

    def look(self, later_s: float = 15) -> dict[str, Any]:
        self.clock.advance(later_s)
        self.lookout.look()
        return lines(self.root, "machine")[-1]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path, os.getpid())


def test_silence_counts_from_what_moved_last(case: Case) -> None:
    assert case.look()["silent_s"] == 0
    assert case.look()["silent_s"] == 15
    case.root.log.write_text("a line\n")
    assert case.look()["silent_s"] == 0
    assert case.look(60)["silent_s"] == 60
    folder = case.work / "out" / "checkpoint-5"
    folder.mkdir(parents=True)
    assert case.look()["silent_s"] == 0
    (folder / "model.safetensors").write_bytes(b"x")
    assert case.look()["silent_s"] == 0
    case.lookout.take_report({"trainerStatus": {}})
    assert case.look()["silent_s"] == 0
    assert case.look()["silent_s"] == 15


def test_a_look_tells_where_the_log_is_and_whose_it_is(case: Case) -> None:
    case.root.log.write_text("twelve bytes")
    look = case.look()
    assert (look["attempt"], look["log_bytes"], look["gpus"]) == (1, 12, GPUS)
    assert [each["log_from"] for each in lines(case.root, "began")] == [7]


def test_the_machine_is_that_of_the_trainers_processes(tmp_path: Path) -> None:
    busy = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    load = Load()
    with sleeper(sys.executable, "-c", busy + "time.sleep(60)") as child:
        process = Process.of(child.pid)
        assert process
        assert set(load.look([process]).values()) == {None}
        deadline = time.monotonic() + 20
        worked = 0.0
        while worked < 5 and time.monotonic() < deadline:
            time.sleep(0.2)
            worked = load.look([process])["cpu_percent"] or 0
        assert worked >= 5
    with sleeper() as child:
        process = Process.of(child.pid)
        assert process
        load.look([process])
        time.sleep(0.2)
        assert load.look([process])["cpu_percent"] == 0


def test_what_nvidia_smi_says() -> None:
    told = parse_gpus("0, 87, 20480, 81920\n1, [N/A], 3, 4\nno devices were found\n")
    assert told == [{"index": 0, "percent": 87.0, "used_gb": 20.0, "total_gb": 80.0}]


def test_an_ended_trainer_is_looked_at_once_more(tmp_path: Path) -> None:
    with sleeper() as child:
        case = Case(tmp_path, child.pid)
        claim = case.attempt.folder / "claim"
        claim.write_text((case.attempt.folder / "pid").read_text())
        assert "ended" not in case.look()
    for _ in range(LOOKS_AFTER - 1):
        assert "ended" not in case.look(), "its memory may become free yet"
    assert case.look()["ended"] is True
    case.look()
    assert len(lines(case.root, "machine")) == 2


def test_memory_that_is_free_is_told_at_once(tmp_path: Path) -> None:
    with sleeper() as child:
        case = Case(tmp_path, child.pid)
        claim = case.attempt.folder / "claim"
        claim.write_text((case.attempt.folder / "pid").read_text())
    case.lookout._gpus = lambda: [{**GPUS[0], "used_gb": 0.4}]
    assert case.look()["ended"] is True


def test_evaluations_are_told_whole_and_when_they_change(tmp_path: Path) -> None:
    case = Case(tmp_path, os.getpid(), watched=["eval/a.json", "eval/b.json"])
    folder = case.work / "eval"
    folder.mkdir()
    (folder / "a.json").write_text('{"loss": 1')
    (folder / "b.json").write_text("[1]")
    case.look()
    assert lines(case.root, "file") == []
    (folder / "a.json").write_text('{"loss": 1.5}')
    case.look()
    case.look()
    (told,) = lines(case.root, "file")
    assert (told["name"], told["data"]) == ("eval/a.json", {"loss": 1.5})
    (folder / "a.json").write_text('{"loss": 1.25}')
    case.lookout.last(case.attempt)
    assert lines(case.root, "file")[-1]["data"] == {"loss": 1.25}


@pytest.mark.parametrize("kind", ["fifo", "large", "folder", "missing"])
def test_what_is_no_evaluation_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    case = Case(tmp_path, os.getpid(), watched=["a.json"])
    path = case.work / "a.json"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "large":
            path.write_text(json.dumps({"x": "y" * 2**21}))
        case "folder":
            path.mkdir()
    case.look()
    assert lines(case.root, "file") == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.json", "a//b", ""])
def test_a_spec_watches_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    case = Case(tmp_path, os.getpid(), watched=[name])
    with pytest.raises(ContractError):
        Spec.read(case.root, 1)


def test_the_log_of_llama_factory_is_told_as_it_grows(case: Case) -> None:
    (case.work / "out").mkdir()
    path = case.work / "out" / "trainer_log.jsonl"
    path.write_text('{"current_steps": 1}\n{"current_st')
    case.look()
    with path.open("a") as file:
        file.write('eps": 2}\n')
    case.look()
    told = [line for each in lines(case.root, "trainer_log") for line in each["lines"]]
    assert told == ['{"current_steps": 1}', '{"current_steps": 2}']


def test_of_a_later_attempt_only_new_lines_are_its_own(tmp_path: Path) -> None:
    case = Case(tmp_path, os.getpid(), number=2)
    (case.work / "out").mkdir()
    path = case.work / "out" / "trainer_log.jsonl"
    path.write_text('{"current_steps": 1}\n')
    case.look()
    with path.open("a") as file:
        file.write('{"current_steps": 2}\n')
    case.look()
    assert [each["lines"] for each in lines(case.root, "trainer_log")] == [['{"current_steps": 2}']]


def test_a_file_of_sights_is_bounded_and_its_end_is_for_the_dear_ones(tmp_path: Path) -> None:
    sights = Sights(tmp_path / "sights", most=1000)
    while sights.tell("report", 1, body={"x": "y" * 50}):
        pass
    assert sights.tell("machine", 1, dear=True, silent_s=1.0)
    while sights.tell("machine", 1, dear=True, silent_s=1.0):
        pass
    assert (tmp_path / "sights").stat().st_size <= 1000


def test_a_torn_line_ends_where_the_next_agent_begins(tmp_path: Path) -> None:
    path = tmp_path / "sights"
    path.write_bytes(b'{"kind": "mach')
    Sights(path).tell("machine", 1)
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"kind": "mach' and json.loads(whole)["kind"] == "machine"


def post(env: dict[str, str], body: bytes, token: str | None = None) -> int:
    key = Path(env[TOKEN]).read_text() if token is None else token
    request = urllib.request.Request(
        env[URL], body, {"Authorization": f"Bearer {key}"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@contextmanager
def receiver(root: Root, taken: list[Any]) -> Iterator[dict[str, str]]:
    root.path.mkdir(parents=True, exist_ok=True)
    made = Receiver(root, taken.append)
    try:
        yield report_env(root, {})
    finally:
        made.close()


def test_a_report_is_taken_from_who_has_the_token(tmp_path: Path) -> None:
    taken: list[Any] = []
    with receiver(Root(tmp_path), taken) as env:
        assert post(env, b'{"trainerStatus": {"progressPercentage": 1}}') == 200
        assert post(env, b'{"trainerStatus": {}}', token="another") == 403
        assert post(env, b'{"status": 1}') == 400
        assert post(env, b"[" * 60_000) == 400
        assert post(env, b" " * 70_000) == 413
    assert taken == [{"trainerStatus": {"progressPercentage": 1}}]
    assert (tmp_path / "reports.token").stat().st_mode & 0o777 == 0o600


def test_the_next_agent_listens_where_the_one_before_did(tmp_path: Path) -> None:
    with receiver(Root(tmp_path), []) as before:
        pass
    with receiver(Root(tmp_path), []) as after:
        assert after == before


@pytest.mark.parametrize(
    ("env", "is_told"),
    [
        ({}, True),
        ({URL: "https://elsewhere"}, False),
        ({"DISABLE_KUBEFLOW_INTEGRATION": "TRUE"}, False),
        ({"http_proxy": "http://proxy:3128"}, False),
        ({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "localhost, 127.0.0.1"}, True),
    ],
    ids=["usual", "another receiver", "switched off", "proxy", "proxy with an exemption"],
)
def test_who_is_told_where_to_report(tmp_path: Path, env: dict[str, str], is_told: bool) -> None:
    with receiver(Root(tmp_path), []):
        assert bool(report_env(Root(tmp_path), env)) is is_told


def test_reports_become_lines_now_and_then(case: Case) -> None:
    for _ in range(3):
        case.lookout.take_report({"trainerStatus": {"x": 1}})
    case.clock.advance(11)
    case.lookout.take_report({"trainerStatus": {"x": 2}})
    bodies = [each["body"]["trainerStatus"]["x"] for each in lines(case.root, "report")]
    assert bodies == [1, 2]


@pytest.mark.trainer
def test_the_real_callback_of_transformers_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", minversion="5.4")
    from transformers.integrations import KubeflowCallback

    taken: list[Any] = []
    with receiver(Root(tmp_path), taken) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        told = {"current_step": 3, "total_steps": 9, "loss": float("nan")}
        KubeflowCallback()._update_status(33, 60, metrics=told, force=True)
    (body,) = taken
    assert {"name": "loss", "value": "nan"} in body["trainerStatus"]["metrics"]


def unpacked(root: Root) -> dict[str, bytes]:
    told = lines(root, "dump")
    return {each["name"]: zlib.decompress(base64.b64decode(each["data"])) for each in told}


def test_a_dump_has_processes_threads_and_what_ranks_meet_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("SOME_TOKEN", "hush")
    flight = tmp_path / "flight_"
    (tmp_path / "flight_0").write_bytes(b"\x80trace")
    monkeypatch.setenv("TORCH_NCCL_DEBUG_INFO_TEMP_FILE", str(flight))
    monkeypatch.setattr(dumping, "USUAL_FLIGHT_FILE", str(tmp_path / "none_"))
    with sleeper("sleep", "61") as child:
        case = Case(tmp_path, child.pid)
        (case.attempt.folder / "claim").unlink()
        said = dumping.dump(case.root, 1)
    found = unpacked(case.root)
    text = found["stacks.txt"].decode()
    assert said["processes"] >= 1 and "stacks.txt" in said["files"]
    assert "sleep 61" in text and "NCCL_DEBUG=INFO" in text and "thread" in text
    assert "hush" not in text
    assert found["flight-0.bin"] == b"\x80trace"


def test_a_secret_of_the_command_line_is_not_in_a_dump(tmp_path: Path) -> None:
    with sleeper(sys.executable, "-c", "import time; time.sleep(60)", "--key=sk-hush") as child:
        case = Case(tmp_path, child.pid)
        (case.attempt.folder / "claim").unlink()
        case.root.secrets.write_text("API_KEY=sk-hush\nSHORT=a\n")
        dumping.dump(case.root, 1)
    text = unpacked(case.root)["stacks.txt"].decode()
    assert "--key=*******" in text and "sk-hush" not in text and "-c import" in text


def test_a_py_spy_that_never_ends_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\ntrap '' TERM\necho half; exec sleep 61\n")
    spy.chmod(0o755)
    monkeypatch.setattr(dumping, "_spy", lambda processes: str(spy))
    monkeypatch.setattr(dumping, "SPY_TIMEOUT_S", 0.3)
    with sleeper() as child:
        case = Case(tmp_path, child.pid)
        (case.attempt.folder / "claim").unlink()
        began = time.monotonic()
        assert dumping.dump(case.root, 1)["files"] == ["stacks.txt"]
        assert time.monotonic() - began < 10
    assert "timed out" in unpacked(case.root)["stacks.txt"].decode()


def test_a_process_that_cannot_be_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc keeps whoever reads it waiting for a process that waits for a disk."""
    never = threading.Event()
    monkeypatch.setattr(dumping, "_describe", lambda *_: never.wait(20) and "")
    monkeypatch.setattr(dumping, "MOST_S", 0.1)
    with sleeper() as child:
        case = Case(tmp_path, child.pid)
        (case.attempt.folder / "claim").unlink()
        said = dumping.dump(case.root, 1)
    never.set()
    assert said["files"] == ["stacks.txt"]
    assert "does not let itself be looked at" in unpacked(case.root)["stacks.txt"].decode()


def test_what_a_process_reads_and_sends_is_at_work_too(tmp_path: Path) -> None:
    sends = "import os, time\nr, w = os.pipe()\nwhile True:\n"
    sends += " os.write(w, bytes(4096)); os.read(r, 4096); time.sleep(0.01)"
    load = Load()
    with sleeper(sys.executable, "-c", sends) as child:
        process = Process.of(child.pid)
        assert process
        load.look([process])
        deadline, passed = time.monotonic() + 20, 0.0
        while passed < 100_000 and time.monotonic() < deadline:
            time.sleep(0.2)
            passed = load.look([process])["passed_bytes_per_s"] or 0
    assert passed >= 100_000


def test_of_an_ended_trainer_there_is_nothing_to_dump(tmp_path: Path) -> None:
    with sleeper() as child:
        case = Case(tmp_path, child.pid)
        (case.attempt.folder / "claim").unlink()
    assert dumping.dump(case.root, 1)["processes"] == 0
    assert lines(case.root, "dump") == []


def test_a_lookout_looks_by_itself_until_it_is_over(tmp_path: Path) -> None:
    case = Case(tmp_path, os.getpid(), look_s=0.2)
    lookout = Lookout(case.root, case.sights, gpus=lambda: None)
    end = threading.Event()
    thread = threading.Thread(target=lookout.run, args=(end,))
    thread.start()
    lookout.watch(case.attempt)
    deadline = time.monotonic() + 20
    while len(lines(case.root, "machine")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    end.set()
    thread.join(10)
    assert len(lines(case.root, "machine")) >= 2 and not thread.is_alive()
