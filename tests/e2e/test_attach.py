"""`gpujob attach` shows the trainer's own terminal, and leaving it leaves the trainer alone."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest
from kit.gpujob import Place

pytestmark = pytest.mark.e2e


def test_attach_shows_the_trainer_and_detaches(place: Place) -> None:
    run = place.launch(place.job("--step-s 1"))
    place.wait_for(run, "attempt.started")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "attach", run],
        env={**place.env, "TERM": "xterm"},
        cwd=place.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        assert "training from step 0" in _read_until(ours, "training from step 0")
        assert "detached" in _detach(ours)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "attempt.exited" not in place.kinds(run)
    place.run("teardown", run)


def test_attach_needs_a_terminal_and_a_box(place: Place) -> None:
    run = place.launch(place.job("--steps 10"))
    place.wait_for(run, "attempt.started")
    assert "gpujob logs" in place.run("attach", run, check=1).stderr
    place.run("watch", run)
    assert "no box" in place.run("attach", run, check=9).stderr


def _detach(terminal: int) -> str:
    """Ctrl-B D, again while tmux is not yet listening: it draws before it reads keys."""
    seen = ""
    for _ in range(15):
        os.write(terminal, b"\x02d")
        seen += _read_until(terminal, "detached", timeout_s=2)
        if "detached" in seen:
            break
    return seen


def _read_until(terminal: int, words: str, timeout_s: float = 30) -> str:
    seen = ""
    deadline = time.monotonic() + timeout_s
    while words not in seen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                break
    return seen
