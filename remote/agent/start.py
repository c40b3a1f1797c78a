"""The commands that act on the trainer: start and stop. Both may be repeated."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, Optional

from remote.agent import tmux
from remote.agent.attempt import Attempt
from remote.agent.durable import read_json
from remote.agent.heard import Heard
from remote.agent.paths import Root
from remote.agent.procs import Process, descendants
from remote.agent.program import agent_command
from remote.agent.spec import Spec

AGENT_TIMEOUT_S = 20.0
TRAINER_TIMEOUT_S = 40.0
POLL_S = 0.02


class StartError(Exception):
    """The trainer was not started; the text says why and what to do."""


def start(root: Root, instance: str, number: int) -> Dict[str, Any]:
    """See to it that a supervisor lives and that attempt `number` was started, once.

    Raises StartError, ContractError, TmuxError; then nothing new runs."""
    Heard(root).note()
    spec = Spec.read(root, number)
    _check(root, instance, spec)
    with _exclusive(root):
        attempt = Attempt(root, number)
        was_started = attempt.is_claimed
        if not was_started:
            _check_alone(root, number)
            tmux.check()
            attempt.ask()
        _ensure_agent(root, instance)
        trainer = _await_trainer(attempt)
    return {"started": not was_started, "pid": trainer.pid if trainer else None}


def stop(root: Root, number: int, name: str) -> Dict[str, Any]:
    """Signal the trainer's process group. TERM goes to the group alone, which a launcher passes
    on as it sees fit; KILL to all that runs below it too. Gone already is success."""
    attempt = Attempt(root, number)
    trainer, wrapper = attempt.trainer, attempt.wrapper
    ends = [each for each in (trainer, wrapper) if each]
    below = descendants(ends) if name == "KILL" else []
    signalled = bool(trainer and trainer.send_group(signal.Signals["SIG" + name]))
    for process in below:
        signalled = process.send(signal.SIGKILL) or signalled
    return {"signalled": signalled}


def living_agent(root: Root) -> Optional[Process]:
    """The supervisor that runs, if one does."""
    process = Process.from_json(read_json(root.agent))
    return process if process and process.alive else None


def _check(root: Root, instance: str, spec: Spec) -> None:
    if spec.instance != instance:
        raise StartError("spec.json is for %s, and this is %s" % (spec.instance, instance))
    if spec.secrets and not root.secrets.is_file():
        raise StartError("the job has secrets and secrets.env is not on the box; upload it first")


def _check_alone(root: Root, number: int) -> None:
    for other in root.attempts():
        if other != number and Attempt(root, other).is_running:
            raise StartError(
                "the trainer of attempt %d still runs; nothing was started."
                " Stop it first: stop --attempt %d --signal TERM" % (other, other)
            )


@contextlib.contextmanager
def _exclusive(root: Root) -> Iterator[None]:
    lock = os.open(root.start_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _ensure_agent(root: Root, instance: str) -> None:
    """Detached, with no descriptor of ours: ssh returns when the last holder of one is gone."""
    if living_agent(root):
        return
    log = os.open(root.agent_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        subprocess.Popen(
            agent_command("supervise", root, "--instance", instance),
            cwd=root.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)
    if not _await(lambda: living_agent(root), AGENT_TIMEOUT_S):
        raise StartError("the agent did not start; see agent.log in %s on the box" % root.path)


def _await_trainer(attempt: Attempt) -> Optional[Process]:
    """The trainer's process, None when it ended before it could be looked at."""

    def is_decided() -> bool:
        over = attempt.recorded_rc is not None
        return over or attempt.trainer is not None or attempt.refusal is not None

    decided = _await(is_decided, TRAINER_TIMEOUT_S)
    if attempt.refusal is not None:
        raise StartError("the trainer was not started: %s" % attempt.refusal)
    if not decided:
        raise StartError(
            "attempt %d waits: the agent still seals what an earlier one left."
            " Repeat the command" % attempt.number
        )
    return attempt.trainer


def _await(look: Callable[[], object], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if look():
            return True
        time.sleep(POLL_S)
    return False
