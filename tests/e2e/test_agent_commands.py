"""Starting, stopping and following, and what must hold when a process in between is killed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.agentbox import AgentBox, build_agent, runs, wait_for

from remote.contract import MAGIC

pytestmark = pytest.mark.e2e
SECRET = "planted-7f3a91c2"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_agent(tmp_path_factory.mktemp("agent") / "agent.pyz")


@pytest.fixture
def box(tmp_path: Path, archive: Path) -> Iterator[AgentBox]:
    made = AgentBox(tmp_path / "home", archive)
    yield made
    made.close()


def tmux(box: AgentBox, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["tmux", "-S", "tmux.sock", *words]
    return subprocess.run(command, cwd=box.root, capture_output=True, text=True, timeout=10)


def test_a_trainer_runs_in_a_terminal_that_shows_its_output(box: AgentBox) -> None:
    box.spec(1, "echo hello from $GREETING; pwd; sleep 30", env={"GREETING": "here"})
    box.start()
    shown = wait_for(lambda: tmux(box, "capture-pane", "-p", "-t", "train").stdout.strip(), "text")
    assert shown.splitlines() == ["hello from here", str(box.work)]
    assert (box.root / "log").read_text().splitlines() == shown.splitlines()


@pytest.mark.parametrize(
    ("command", "rc"),
    [("exit 0", 0), ("exit 41", 41), ("kill -9 $$", 137), ("no-such-program", 127)],
)
def test_exit_codes(box: AgentBox, command: str, rc: int) -> None:
    box.spec(1, f"echo last words; {command}")
    box.start()
    fact = box.await_fact("trainer.exited")[0]
    assert fact.data["rc"] == rc and "last words" in fact.data["tail"]
    box.await_fact("agent.settled")


def test_starting_twice_starts_once(box: AgentBox) -> None:
    box.spec(1, "echo started; sleep 30")
    first, second = box.start(), box.start()
    assert (first["started"], second["started"]) == (True, False)
    assert first["pid"] == second["pid"]
    assert (box.root / "log").read_text() == "started\n"


@pytest.mark.parametrize("victim", ["tmux", "wrapper's terminal"])
def test_the_exit_code_survives_tmux(box: AgentBox, victim: str) -> None:
    box.spec(1, "sleep 2; echo still here; exit 5")
    box.start()
    if victim == "tmux":
        os.kill(int(tmux(box, "display", "-p", "#{pid}").stdout), signal.SIGKILL)
    else:
        assert tmux(box, "kill-server").returncode == 0
    fact = box.await_fact("trainer.exited")[0]
    assert fact.data["rc"] == 5 and "still here" in fact.data["tail"]


def test_a_killed_wrapper_leaves_a_trainer_with_an_unknown_end(box: AgentBox) -> None:
    box.spec(1, "sleep 2; exit 5")
    box.start()
    claim = json.loads((box.root / "attempts/1/claim").read_text())
    os.kill(claim["pid"], signal.SIGKILL)
    trainer = json.loads((box.root / "attempts/1/pid").read_text())["pid"]
    assert runs(trainer)
    assert box.await_fact("trainer.exited")[0].data["rc"] == -1
    assert not runs(trainer)


def test_secrets_reach_the_trainer_and_nothing_else(box: AgentBox) -> None:
    (box.root / "secrets.env").write_text(f"HF_TOKEN={SECRET} = with spaces\n")
    (box.root / "secrets.env").chmod(0o600)
    box.spec(1, 'printf "%s" "$HF_TOKEN" > got; echo "it is $HF_TOKEN"; sleep 30', secrets=True)
    trainer = box.start()["pid"]
    wait_for(lambda: (box.work / "got").exists() and (box.root / "log").stat().st_size, "output")
    assert (box.work / "got").read_text() == f"{SECRET} = with spaces"
    assert SECRET not in tmux(box, "show-environment", "-g").stdout
    assert SECRET not in tmux(box, "show-environment", "-t", "train").stdout
    for pid in box.processes():
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        if os.getpgid(pid) != trainer:
            assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    box.stop(1, "KILL")
    assert SECRET not in box.await_fact("trainer.exited")[0].data["tail"]
    holders = [path for path in box.root.rglob("*") if path.is_file() and path.stat().st_size]
    found = [path.name for path in holders if SECRET.encode() in path.read_bytes()]
    assert sorted(found) == ["log", "secrets.env"], "the log holds it because the job printed it"


def test_stopping_reaches_the_whole_group_and_may_be_repeated(box: AgentBox) -> None:
    box.spec(1, "trap 'echo saving; exit 7' TERM; echo up; while :; do sleep 0.1; done")
    box.start()
    wait_for(lambda: (box.root / "log").read_text() == "up\n", "the trap is set")
    assert box.stop()["signalled"] is True
    fact = box.await_fact("trainer.exited")[0]
    assert fact.data["rc"] == 7 and "saving" in fact.data["tail"]
    assert box.stop()["signalled"] is False
    assert box.stop(1, "KILL")["signalled"] is False


def test_killing_reaches_ranks_in_sessions_of_their_own(box: AgentBox) -> None:
    box.spec(1, "setsid sleep 300 & echo $! > rank; trap '' TERM; wait; sleep 300")
    box.start()
    rank = int(wait_for(lambda: _read(box.work / "rank"), "a rank"))
    box.stop(1, "KILL")
    assert box.await_fact("trainer.exited")[0].data["rc"] == 137
    assert not runs(rank)


def test_what_a_trainer_leaves_running_is_ended_before_it_counts_as_exited(box: AgentBox) -> None:
    box.spec(1, "setsid sleep 300 & echo $! > left")
    box.start()
    box.await_fact("trainer.exited")
    assert not runs(int((box.work / "left").read_text()))


def test_an_attempt_does_not_start_beside_another(box: AgentBox) -> None:
    box.spec(1, "sleep 30")
    box.spec(2, "sleep 30")
    box.start(1)
    done = box.run("start", "--instance", "i1", "--attempt", "2")
    assert done.returncode == 1
    assert "attempt 1 still runs" in json.loads(done.stdout)["error"]


def test_an_attempt_that_never_ran_gives_way_to_a_newer_one(box: AgentBox) -> None:
    """The box was restarted before it could: its controller has given that attempt up."""
    box.spec(1, "echo one")
    (box.root / "attempts" / "1" / "asked").write_text("{}")
    box.spec(2, "echo two")
    box.start(2)
    box.await_fact("agent.settled")
    assert (box.root / "log").read_text() == "two\n"
    assert [fact.data["attempt"] for fact in box.facts("trainer.started")] == [2]


def _without_tmux(box: AgentBox) -> str:
    tools = box.home / "bin"
    tools.mkdir()
    for name in ("bash", "sleep"):
        (tools / name).symlink_to(str(shutil.which(name)))
    return str(tools)


def test_without_tmux_it_says_so_and_starts_nothing(box: AgentBox) -> None:
    box.spec(1, "touch ran")
    words = ("start", "--instance", "i1", "--attempt", "1")
    done = box.run(*words, path=_without_tmux(box))
    said = json.loads(done.stdout)
    assert (done.returncode, said["v"]) == (1, 1)
    assert "tmux is not installed" in said["error"] and "apt-get install" in said["error"]
    assert box.processes() == [] and not (box.work / "ran").exists()
    assert box.start()["started"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"v": 2}, "version 2", id="version"),
        pytest.param({"layout": "megatron"}, "layout", id="layout"),
        pytest.param({"instance": "i2"}, "i2", id="other instance"),
        pytest.param({"attempt": 4}, "attempt 4", id="other attempt"),
        pytest.param({"command": None}, "spec.json is wrong", id="no command"),
        pytest.param({"secrets": True}, "secrets.env", id="secrets missing"),
    ],
)
def test_a_wrong_spec_is_one_clear_error(
    box: AgentBox, changes: dict[str, Any], message: str
) -> None:
    box.spec(1, "touch ran", **changes)
    done = box.run("start", "--instance", "i1", "--attempt", "1")
    assert done.returncode == 1 and done.stderr == ""
    assert message in json.loads(done.stdout)["error"]
    assert box.processes() == []


class Follower:
    """`follow` as a process; what it said so far."""

    def __init__(self, box: AgentBox, events: int = 0, log: int = 0, metrics: int = 0) -> None:
        offsets = ("--events", events, "--log", log, "--metrics", metrics)
        self.process = box.popen("follow", *map(str, offsets))
        assert self.process.stdout
        assert self.process.stdout.readline() == MAGIC

    def read_until(self, wanted: str) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        assert self.process.stdout
        for line in self.process.stdout:
            said.append(json.loads(line))
            if wanted in line.decode():
                return said
        raise AssertionError(f"ended before {wanted}: {said}")

    def close(self) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(5)


def test_following_goes_on_where_it_stopped(box: AgentBox) -> None:
    text = "for n in 1 2 3 4; do echo line $n; echo '{\"step\": '$n'}' >> $GPUJOB_METRICS; "
    box.spec(1, text + "sleep 0.7; done")
    box.start()
    first = Follower(box)
    said = first.read_until("trainer.started")
    assert first.close() == 0, "it ends when nobody reads it"
    events = [each for each in said if each.get("file") == "events"]
    log = b"".join(base64.b64decode(each["data"]) for each in said if each.get("file") == "log")
    metrics = b"".join(_data(said, "metrics"))

    second = Follower(box, events[-1]["end"], len(log), len(metrics))
    rest = second.read_until("agent.settled")
    second.close()
    log += b"".join(_data(rest, "log"))
    metrics += b"".join(_data(rest, "metrics"))
    facts = [each["line"] for each in [*said, *rest] if each.get("file") == "events"]
    assert facts == [json.loads(line) for line in (box.root / "events.jsonl").open()]
    assert log == (box.root / "log").read_bytes() and b"line 4" in log
    assert metrics == (box.root / "metrics.jsonl").read_bytes() and metrics
    beats = [each for each in rest if "heartbeat" in each]
    assert beats and all(beat["agent_alive"] for beat in beats)


def test_a_follower_says_that_the_agent_is_dead(box: AgentBox) -> None:
    box.spec(1, "sleep 30")
    box.start()
    os.kill(box.agent_pid(), signal.SIGKILL)
    follower = Follower(box)
    said = follower.read_until("heartbeat")
    follower.close()
    assert said[-1]["agent_alive"] is False


def test_a_torn_fact_is_neither_told_nor_kept(box: AgentBox) -> None:
    box.spec(1, "sleep 30")
    box.start()
    box.await_fact("trainer.started")
    os.kill(box.agent_pid(), signal.SIGKILL)
    events = box.root / "events.jsonl"
    whole = events.read_bytes()
    with events.open("ab") as file:
        file.write(b'{"v": 1, "instance": "i1", "boot"')
    follower = Follower(box)
    said = follower.read_until("heartbeat")
    assert [each["end"] for each in said if each.get("file") == "events"][-1] == len(whole)
    box.start()
    assert box.await_fact("agent.started", 2) and events.read_bytes().startswith(whole)
    assert json.loads(events.read_bytes()[len(whole) :].splitlines()[0])["kind"] == "agent.started"
    assert follower.read_until("agent.started")[-1]["line"]["seq"] == 1
    follower.close()


def test_the_heartbeat_beats(box: AgentBox) -> None:
    box.spec(1, "echo '{\"step\": 12}' >> $GPUJOB_METRICS; sleep 30")
    box.start()

    def pulse() -> dict[str, Any]:
        said: dict[str, Any] = json.loads((box.root / "heartbeat.json").read_text())
        return said if said["step"] == 12 else {}

    first = wait_for(pulse, "a step")
    assert (first["trainer"], first["attempt"], first["settled"]) == ("running", 1, False)
    assert wait_for(lambda: pulse()["at"] > first["at"], "another beat", 5)


PYTHON_39 = next(iter(sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python"))), None)


@pytest.mark.skipif(PYTHON_39 is None, reason="no Python 3.9 on this machine")
def test_the_oldest_python(tmp_path: Path, archive: Path) -> None:
    box = AgentBox(tmp_path / "home", archive, str(PYTHON_39))
    try:
        box.spec(1, box.writer("--pause", "1", "--final"))
        box.start()
        box.await_fact("agent.settled")
        told = [fact.data["name"] for fact in box.facts("checkpoint.sealed")]
        assert told == ["checkpoint-10", "final"] and box.facts("agent.error") == []
        with box.serving() as link:
            header, data = link.ask("manifest", name="final", generation=1)
            assert "error" not in header and json.loads(data)["meta"]["final"] is True
    finally:
        box.close()


def _data(said: list[dict[str, Any]], name: str) -> list[bytes]:
    return [base64.b64decode(each["data"]) for each in said if each.get("file") == name]


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
