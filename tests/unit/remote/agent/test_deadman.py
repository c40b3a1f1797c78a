"""The dead-man switch: never while a controller is heard, always in the end, and in order."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from remote.agent import VERSION
from remote.agent.attempt import Attempt
from remote.agent.deadman import FIRST_WAIT_S, GRACE_S, MAX_WAIT_S, SETTLE_S, Deadman
from remote.agent.facts import Facts
from remote.agent.halt import ask_to_stop
from remote.agent.heard import NOTE_S, Ear, Heard
from remote.agent.paths import Root
from remote.agent.procs import Process
from remote.agent.spec import Spec, StopRequest
from remote.contract import ContractError

ORPHAN_S = 600.0
T0 = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "pod-canary-4711"
STOP = {
    "method": "POST",
    "url": "https://api.example/pods/p1/action",
    "body": {"action": "stop"},
    "token_variable": "POD_API_KEY",
}


class Box:
    """A root with one attempt whose trainer is a real process, time by hand, and an API that
    answers what it is told to."""

    def __init__(self, path: Path) -> None:
        self.root = Root(path)
        path.mkdir()
        self.now_s = 0.0
        self.asked: list[tuple[float, str]] = []
        self.answers: list[int | Exception] = []
        self.settled = False
        self.trainers: list[subprocess.Popen[bytes]] = []
        self.begin()

    def begin(self) -> None:
        """What a new supervisor does."""
        self.deadman = Deadman(
            self.root,
            Facts(self.root.events, "i1"),
            clock=lambda: self.now_s,
            now=lambda: T0 + timedelta(seconds=self.now_s),
            ask=self._ask,
        )

    def spec(self, attempt: int = 1, **deadman: Any) -> None:
        rule = {"orphan_s": ORPHAN_S, "hours_until": None, "stop": STOP, **deadman}
        folder = self.root.attempt(attempt)
        folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "v": 1,
            "instance": "i1",
            "attempt": attempt,
            "workdir": "w",
            "command": "true",
            "env": {},
            "secrets": False,
            "checkpoints": "out",
            "layout": "huggingface",
            "world_size": 1,
            "resume_step": None,
            "deadman": rule,
        }
        (folder / "spec.json").write_text(json.dumps(spec))

    def train(self, command: str = "sleep 600") -> subprocess.Popen[bytes]:
        trainer = subprocess.Popen(
            ["bash", "-c", f"{command} & echo ready; wait"],
            start_new_session=True,
            stdout=subprocess.PIPE,
        )
        assert trainer.stdout and trainer.stdout.readline() == b"ready\n"
        self.trainers.append(trainer)
        process = Process.of(trainer.pid)
        assert process
        Attempt(self.root, 1).record_trainer(process)
        return trainer

    def pass_time(self, seconds: float, every_s: float = 1.0) -> None:
        end = self.now_s + seconds
        while self.now_s < end:
            self.now_s = min(end, self.now_s + every_s)
            self.deadman.step(settled=self.settled)

    def hear(self) -> None:
        before = self.root.heard.stat().st_mtime_ns if self.root.heard.exists() else 0
        self.root.heard.touch()
        os.utime(self.root.heard, ns=(0, before + 1))

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        lines = self.root.events.read_bytes().splitlines() if self.root.events.exists() else []
        return [(each["kind"], each["data"]) for each in map(json.loads, lines)]

    def _ask(self, request: StopRequest, token: str) -> int:
        assert (request.method, request.url, request.body) == (
            STOP["method"],
            STOP["url"],
            STOP["body"],
        )
        self.asked.append((self.now_s, token))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setenv("POD_API_KEY", TOKEN)
    box = Box(tmp_path / "root")
    yield box
    for trainer in box.trainers:
        if trainer.poll() is None:
            os.killpg(trainer.pid, 9)
        trainer.wait()
        assert trainer.stdout
        trainer.stdout.close()


def test_a_box_without_the_rule_never_fires(box: Box) -> None:
    box.spec()
    spec = json.loads((box.root.attempt(1) / "spec.json").read_text())
    del spec["deadman"]
    (box.root.attempt(1) / "spec.json").write_text(json.dumps(spec))
    box.settled = True
    box.pass_time(100 * ORPHAN_S, every_s=60)
    assert (box.told(), box.asked) == ([], [])


def test_nothing_is_asked_while_a_controller_is_heard(box: Box) -> None:
    box.spec()
    box.settled = True
    for _ in range(50):
        box.pass_time(ORPHAN_S - 2, every_s=30)
        box.hear()
        box.pass_time(1)
    assert (box.told(), box.asked) == ([], [])


def test_a_settled_box_is_stopped_once_the_silence_is_long_enough(box: Box) -> None:
    box.spec()
    box.settled = True
    box.pass_time(ORPHAN_S - 1)
    assert (box.told(), box.asked) == ([], [])
    box.pass_time(1)
    ((kind, data),) = box.told()
    assert (kind, data["attempt"]) == ("deadman.fired", 1)
    assert data["reason"] == "no controller was heard for 600 s and no trainer runs"
    assert box.asked == [(ORPHAN_S, TOKEN)]


def test_a_new_supervisor_waits_anew(box: Box) -> None:
    box.spec()
    box.settled = True
    box.pass_time(ORPHAN_S - 1)
    box.begin()
    box.pass_time(ORPHAN_S - 1)
    assert box.asked == []
    box.pass_time(1)
    assert len(box.asked) == 1


def test_a_trainer_goes_on_alone_until_the_hours_are_over(box: Box) -> None:
    hours_s = 20 * ORPHAN_S
    box.spec(hours_until=(T0 + timedelta(seconds=hours_s)).isoformat().replace("+00:00", "Z"))
    trainer = box.train()
    box.pass_time(hours_s - 60, every_s=60)
    assert (box.told(), trainer.poll()) == ([], None)
    box.pass_time(60)
    assert trainer.wait(10) == -15
    assert [kind for kind, _ in box.told()] == ["deadman.fired"]
    assert box.told()[0][1]["reason"].endswith("the budget's hours are over")


def test_a_trainer_without_hours_is_never_ended(box: Box) -> None:
    box.spec()
    trainer = box.train()
    box.pass_time(1000 * ORPHAN_S, every_s=600)
    assert (box.told(), box.asked, trainer.poll()) == ([], [], None)


def test_the_hours_end_nothing_while_a_controller_is_heard(box: Box) -> None:
    box.spec(hours_until="2025-01-01T00:00:00Z")
    trainer = box.train()
    for _ in range(20):
        box.pass_time(ORPHAN_S - 2, every_s=30)
        box.hear()
        box.pass_time(1)
    assert (box.told(), trainer.poll()) == ([], None)


def test_a_trainer_that_ignores_the_request_is_killed_after_its_grace(box: Box) -> None:
    box.spec(hours_until="2025-01-01T00:00:00Z")
    trainer = box.train("trap '' TERM; sleep 600")
    box.pass_time(ORPHAN_S)
    box.pass_time(GRACE_S - 1)
    children = Process.of(trainer.pid)
    assert box.asked == []
    box.pass_time(5)
    assert trainer.wait(10) in (-9, -15)
    assert children and not children.alive


def test_the_box_is_stopped_only_after_its_seals(box: Box) -> None:
    box.spec()
    box.pass_time(ORPHAN_S + 300)
    assert [kind for kind, _ in box.told()] == ["deadman.fired"]
    assert box.asked == []
    box.settled = True
    box.pass_time(1)
    assert len(box.asked) == 1


def test_seals_that_never_come_keep_the_box_only_so_long(box: Box) -> None:
    box.spec()
    box.pass_time(ORPHAN_S + GRACE_S + SETTLE_S - 1)
    assert box.asked == []
    box.pass_time(1)
    assert len(box.asked) == 1


@pytest.mark.parametrize("answer", [500, 429, 404, 302, OSError("down")], ids=str)
def test_what_fails_is_asked_again_with_growing_waits(box: Box, answer: int | Exception) -> None:
    box.spec()
    box.settled = True
    box.answers = [answer] * 20
    box.pass_time(ORPHAN_S + 3 * MAX_WAIT_S)
    times = [at for at, _ in box.asked]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits == sorted(waits) and waits[-1] == MAX_WAIT_S
    assert [kind for kind, _ in box.told()] == ["deadman.fired"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_told_once_and_never_asked_again(box: Box, status: int) -> None:
    box.spec()
    box.settled = True
    box.answers = [status]
    box.pass_time(ORPHAN_S + 10 * MAX_WAIT_S, every_s=5)
    assert len(box.asked) == 1
    fired, refused = box.told()
    assert (fired[0], refused[0]) == ("deadman.fired", "deadman.refused")
    assert (refused[1]["status"], refused[1]["attempt"]) == (status, 1)


def test_a_box_without_its_token_says_so(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_API_KEY")
    box.spec()
    box.settled = True
    box.pass_time(ORPHAN_S + 60)
    assert box.asked == []
    assert box.told()[1] == (
        "deadman.refused",
        {"attempt": 1, "status": None, "message": "POD_API_KEY is not set on this box"},
    )


def test_a_box_that_cannot_stop_itself_ends_its_trainer_alone(box: Box) -> None:
    box.spec(stop=None, hours_until="2025-01-01T00:00:00Z")
    trainer = box.train()
    box.settled = True
    box.pass_time(ORPHAN_S + 60)
    assert trainer.wait(10) == -15
    assert box.asked == []
    assert [kind for kind, _ in box.told()] == ["deadman.fired"]


def test_a_controller_that_comes_back_calls_it_off(box: Box) -> None:
    box.spec()
    box.settled = True
    box.answers = [500] * 9
    box.pass_time(ORPHAN_S)
    assert len(box.asked) == 1
    box.hear()
    box.pass_time(ORPHAN_S - 1)
    assert len(box.asked) == 1
    box.pass_time(2)
    assert len(box.asked) == 2
    assert [kind for kind, _ in box.told()] == ["deadman.fired"] * 2


def test_a_fact_that_cannot_be_written_keeps_no_box_billing(
    box: Box, capsys: pytest.CaptureFixture[str]
) -> None:
    box.spec()
    box.settled = True
    box.root.events.unlink()
    box.root.events.mkdir()
    box.pass_time(ORPHAN_S)
    assert len(box.asked) == 1
    assert "could not be told" in capsys.readouterr().err
    box.root.events.rmdir()


def test_the_token_is_in_no_fact_and_no_log(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.spec()
    box.settled = True
    box.answers = [OSError(TOKEN), ValueError(TOKEN), 500, 403]
    box.pass_time(ORPHAN_S + 100)
    assert len(box.asked) == 4
    said = capsys.readouterr()
    assert TOKEN not in said.err + said.out + box.root.events.read_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"orphan_s": 0},
        {"orphan_s": -1},
        {"orphan_s": "soon"},
        {"orphan_s": float("inf")},
        {"hours_until": "tomorrow"},
        {"stop": {"method": "POST"}},
        {"stop": {**STOP, "url": 7}},
    ],
    ids=str,
)
def test_a_rule_that_is_none_is_refused_with_its_spec(box: Box, wrong: dict[str, Any]) -> None:
    box.spec(**wrong)
    with pytest.raises(ContractError):
        Spec.read(box.root, 1)


# What counts as a sign of life


def test_what_is_heard_is_noted_at_intervals(box: Box) -> None:
    clock = [0.0]
    heard = Heard(box.root, clock=lambda: clock[0])
    for clock[0], noted in ((0.0, True), (NOTE_S / 2, False), (NOTE_S, True)):
        box.root.heard.unlink(missing_ok=True)
        heard.note()
        assert box.root.heard.exists() is noted


def test_only_what_arrives_is_a_sign_of_life(box: Box) -> None:
    reader, writer = os.pipe()
    try:
        ear = Ear(box.root, reader)
        ear.listen()
        assert not box.root.heard.exists(), "an open channel proves nothing"
        os.write(writer, b"\n")
        ear.listen()
        assert box.root.heard.exists()
        box.root.heard.unlink()
    finally:
        os.close(writer)
    ear.listen()
    ear.listen()
    assert not box.root.heard.exists(), "nor does its end"
    os.close(reader)


# The request itself

Answer = Callable[[BaseHTTPRequestHandler], None]


class Api(ThreadingHTTPServer):
    """An API on a port of its own; `seen` is what it was asked."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _handler(self.seen, status, headers))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def _handler(
    seen: list[tuple[str, str, dict[str, str], bytes]], status: int, headers: dict[str, str]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append((self.command, self.path, dict(self.headers), body))
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_DELETE = do_GET = answer

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Api]]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made: list[tuple[Api, threading.Thread]] = []

    def make(status: int = 200, **headers: str) -> Api:
        api = Api(status, headers)
        thread = threading.Thread(target=lambda: api.serve_forever(poll_interval=0.01))
        thread.start()
        made.append((api, thread))
        return api

    yield make
    for api, thread in made:
        api.shutdown()
        thread.join()
        api.server_close()


def test_the_request_is_the_one_that_was_asked_for(api: Callable[..., Api]) -> None:
    there = api()
    request = StopRequest("POST", f"{there.url}/v2/pods/p1/action", {"action": "stop"}, "X")
    assert ask_to_stop(request, TOKEN) == 200
    ((method, path, headers, body),) = there.seen
    assert (method, path, json.loads(body)) == ("POST", "/v2/pods/p1/action", {"action": "stop"})
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["User-Agent"] == f"gpujob-agent/{VERSION}"
    assert headers["Content-Type"] == "application/json"


def test_a_request_without_a_body_has_none(api: Callable[..., Api]) -> None:
    there = api(204)
    assert ask_to_stop(StopRequest("DELETE", f"{there.url}/p1", {}, "X"), TOKEN) == 204
    ((method, _, headers, body),) = there.seen
    assert (method, body, "Content-Type" in headers) == ("DELETE", b"", False)


@pytest.mark.parametrize("status", [301, 302, 307, 403, 404, 500])
def test_any_status_is_an_answer_and_no_redirection_is_followed(
    api: Callable[..., Api], status: int
) -> None:
    elsewhere = api()
    there = api(status, Location=elsewhere.url)
    assert ask_to_stop(StopRequest("POST", there.url, {"a": 1}, "X"), TOKEN) == status
    assert (len(there.seen), elsewhere.seen) == (1, [])


@pytest.mark.parametrize("url", ["file:///etc/passwd", "api.example/stop", ""])
def test_what_is_no_api_is_not_asked(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        ask_to_stop(StopRequest("POST", url, {}, "X"), TOKEN)


def test_an_api_that_is_not_there_is_an_error(api: Callable[..., Api]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(OSError):
            ask_to_stop(StopRequest("POST", url, {}, "X"), TOKEN)


def seal(box: Box, name: str = "checkpoint-10.1", *, acked: bool = False) -> None:
    folder = box.root.seals / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    if acked:
        (folder / "acked").touch()


def asked_after(box: Box, hours: float) -> int:
    box.settled = True
    box.pass_time(hours * 3600, every_s=60.0)
    return len(box.asked)


def test_a_checkpoint_that_is_nowhere_else_holds_up_the_stop_for_a_day(box: Box) -> None:
    box.spec()
    seal(box)
    assert asked_after(box, 20) == 0
    assert [kind for kind, _ in box.told()].count("deadman.held") == 1
    assert asked_after(box, 6) > 0


def test_until_the_budgets_hours_are_over(box: Box) -> None:
    box.spec(hours_until=(T0 + timedelta(hours=30)).isoformat())
    seal(box)
    assert asked_after(box, 29) == 0
    assert asked_after(box, 3) > 0


def test_what_is_acked_or_on_a_volume_holds_up_nothing(box: Box) -> None:
    box.spec(keeps_seals=True)
    seal(box)
    seal(box, "checkpoint-20.1", acked=True)
    assert asked_after(box, 1) > 0
