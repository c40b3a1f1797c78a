"""What this machine has, and what an API says before it is asked anything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from kit.clock import ManualClock

from orchestrator.adapters.machine import check_machine
from orchestrator.adapters.probe import probe
from orchestrator.core.checks import Check


def checks(state: Path, path: str | None = None) -> dict[str, Check]:
    return {check.what: check for check in check_machine(state, path)}


def test_a_machine_that_has_everything(tmp_path: Path) -> None:
    found = checks(tmp_path / "state")
    assert {found[name].state for name in ("python", "ssh", "ssh-keygen", "sshd", "tmux")} == {"ok"}
    assert str(tmp_path / "state") in found["state folder"].found


def test_a_machine_that_has_nothing(tmp_path: Path) -> None:
    found = checks(tmp_path / "state", path=str(tmp_path))
    assert {name: found[name].state for name in ("ssh", "ssh-keygen", "sshd", "tmux")} == {
        "ssh": "fail",
        "ssh-keygen": "fail",
        "sshd": "warn",
        "tmux": "warn",
    }
    assert found["tmux"].advice == "sudo apt-get install tmux"


def test_a_state_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    check = checks(tmp_path / "file" / "state")["state folder"]
    assert check.state == "fail"
    assert "GPUJOB_HOME" in check.advice


@contextmanager
def api(status: int, date: str | None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            if date:
                self.send_header("Date", date)
            self.send_header("X-Agent", self.headers["User-Agent"])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [200, 401, 403, 404, 500])
def test_any_reply_tells_the_time(status: int) -> None:
    clock = ManualClock()
    there = format_datetime(clock.now(), usegmt=True)
    clock.advance(42)
    with api(status, there) as url:
        assert probe(url, clock, "gpujob/1").ahead_s == 42


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_a_reply_without_a_date_is_a_reply(date: str | None) -> None:
    with api(200, date) as url:
        told = probe(url, ManualClock(), "gpujob/1")
    assert (told.ahead_s, told.trouble) == (None, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[::1"])
def test_no_reply_is_told(url: str) -> None:
    assert probe(url, ManualClock(), "gpujob/1").trouble
