"""The trainer's wrapper: runs in tmux, hands the secrets to the trainer alone, and is there at
its end.

The trainer writes straight into `log`, and the wrapper copies that to the terminal: a terminal
that dies, or a wrapper, takes no output with it and breaks no pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from typing import Any, Dict, List, Optional, Tuple

from remote.agent.attempt import Attempt
from remote.agent.paths import Root
from remote.agent.procs import Process, descendants
from remote.agent.reports import report_env
from remote.agent.spec import Spec

LEFTOVER_GRACE_S = 5.0
TICK_S = 0.1
CANNOT_START = 127
ECHO_BYTES = 65536
_PR_SET_CHILD_SUBREAPER = 36


def run_trainer(root: Root, number: int) -> int:
    """Run one attempt's command to its end and record its exit code. At most once an attempt."""
    attempt = Attempt(root, number)
    if not attempt.claim():
        return 0
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # tmux may die; we may not
    _adopt_orphans()
    screen = Screen(root)
    try:
        child = _spawn(root, attempt)
    except (OSError, ValueError) as error:
        _say(root, "gpujob: the trainer cannot be started: %s" % error)
        attempt.record_exit(CANNOT_START)
        return CANNOT_START
    rc = _await(child, screen)
    attempt.record_exit(rc)
    _end_leftovers(screen)
    return 0


def read_secrets(root: Root) -> Dict[str, str]:
    """`secrets.env`: NAME=value lines, values as they are."""
    pairs: Dict[str, str] = {}
    for line in root.secrets.read_bytes().split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals and name.strip():
            pairs[os.fsdecode(name.strip())] = os.fsdecode(value)
    return pairs


class Screen:
    """The terminal: shows what is appended to the log from now on, as long as it lives."""

    def __init__(self, root: Root) -> None:
        self._log = os.open(root.log, os.O_RDONLY | os.O_CREAT, 0o600)
        os.lseek(self._log, 0, os.SEEK_END)
        self._open = True

    def refresh(self) -> None:
        data = os.read(self._log, ECHO_BYTES)
        while data:
            self._show(data)
            data = os.read(self._log, ECHO_BYTES)

    def _show(self, data: bytes) -> None:
        try:
            while self._open and data:
                data = data[os.write(1, data) :]
        except OSError:
            self._open = False


def _adopt_orphans() -> None:
    """Grandchildren whose parent ends become ours, so that none is overlooked at the end."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _spawn(root: Root, attempt: Attempt) -> Process:
    spec = Spec.read(root, attempt.number)
    spec.workdir.mkdir(parents=True, exist_ok=True)
    log = os.open(root.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        child = subprocess.Popen(
            ["bash", "-c", spec.command],
            cwd=spec.workdir,
            env=_environment(root, spec),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)
    child.returncode = 0  # reaped by _reap, which reaps orphans too
    process = Process.of(child.pid) or Process(child.pid, "")
    attempt.record_trainer(process)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: _pass_on(process, received))
    return process


def _environment(root: Root, spec: Spec) -> Dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TMUX")}
    given = {
        "PYTHONUNBUFFERED": "1",  # or the log, and whoever follows it, is minutes late
        **inherited,
        **spec.env,
        **(read_secrets(root) if spec.secrets else {}),
    }
    return {
        **given,
        **report_env(root, given),
        "GPUJOB_PINNED": str(root.pinned),
        "GPUJOB_METRICS": str(root.metrics),
    }


def _pass_on(trainer: Process, number: int) -> None:
    trainer.send_group(signal.Signals(number))


def _await(child: Process, screen: Screen) -> int:
    rc: Optional[int] = None
    while rc is None:
        time.sleep(TICK_S)
        screen.refresh()
        rc = _reap(child.pid)
    screen.refresh()
    return rc


def _reap(pid: int) -> Optional[int]:
    """Collect whoever has ended. The exit code of `pid` as a shell would give it, or None."""
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if ended == 0:
            return None
        if ended == pid:
            rc = os.waitstatus_to_exitcode(status)
            return rc if rc >= 0 else 128 - rc


def _end_leftovers(screen: Screen) -> None:
    """Whatever the command left running may hold the GPU or write to a checkpoint: end it."""
    me = Process.of(os.getpid())
    phases: Tuple[Any, ...] = (None, signal.SIGTERM, signal.SIGKILL)
    for number in phases:
        left = _below(me)
        for process in left if number else []:
            process.send(number)
        deadline = time.monotonic() + LEFTOVER_GRACE_S
        while left and time.monotonic() < deadline:
            time.sleep(TICK_S)
            screen.refresh()
            left = _below(me)


def _below(me: Optional[Process]) -> List[Process]:
    _reap(0)
    return descendants([me]) if me else []


def _say(root: Root, text: str) -> None:
    with root.log.open("ab") as log:
        log.write(text.encode("utf-8", "backslashreplace") + b"\n")
