"""The agent's one long-lived process: starts attempts, watches the trainer and its checkpoints,
and says what happened. Killed at any moment, the next one goes on from the files."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading
import time
from typing import Any, Dict, Iterator, Optional, Set

from remote.agent import VERSION, prepare, tmux
from remote.agent.attempt import Attempt
from remote.agent.complaints import log_error
from remote.agent.deadman import Deadman
from remote.agent.durable import utc_now, write_json
from remote.agent.facts import Facts
from remote.agent.keeper import Keeper
from remote.agent.lookout import Lookout
from remote.agent.machine import oom_kills
from remote.agent.paths import Root
from remote.agent.procs import Process
from remote.agent.pusher import Pusher
from remote.agent.reports import Receiver
from remote.agent.sights import Sights
from remote.agent.slot import write_slot
from remote.agent.spec import Spec
from remote.agent.tail import last_step, log_tail
from remote.contract import PROTOCOL, ContractError

BUSY_S, QUIET_S, IDLE_S = 0.1, 0.25, 0.5
BEAT_S = 1.0
LAUNCH_TIMEOUT_S = 15.0


def supervise(root: Root, instance: str) -> int:
    """Run until told to end or until the root is gone; at once when another supervisor lives."""
    lock = os.open(root.agent_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease that a writer breaks sends one
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    Supervisor(root, instance).run(end)
    return 0


class Supervisor:
    """One (`boot`) per life of the process."""

    def __init__(self, root: Root, instance: str) -> None:
        self._root = root
        self._facts = Facts(root.events, instance)
        self._deadman = Deadman(root, self._facts)
        self._pusher = Pusher(root, self._facts)
        self._lookout = Lookout(root, Sights(root.sights))
        self._attempt: Optional[Attempt] = None
        self._keeper: Optional[Keeper] = None
        self._launched_at: Optional[float] = None
        self._beat_at = float("-inf")
        self._pinning: Set[str] = set()
        me = Process.of(os.getpid())
        record = {"v": PROTOCOL, "boot": self._facts.boot, **(me.to_json() if me else {})}
        write_json(root.agent, record)
        self._facts.tell("agent.started", version=VERSION)

    def run(self, end: threading.Event) -> None:
        receiver = Receiver(self._root, self._lookout.take_report)
        looking = threading.Thread(target=self._lookout.run, args=(end,), daemon=True)
        looking.start()
        while not end.is_set() and self._root.path.is_dir():
            began = time.monotonic()
            for turn in (self._step, self._watch, self._pusher.step, self._beat):
                try:
                    turn()
                except Exception:  # whatever it is, the trainer and its checkpoints go on
                    log_error()
                    end.wait(BEAT_S)
            took = time.monotonic() - began
            end.wait(max(self._interval() - took, took))
        self._pusher.close()
        if self._keeper:
            self._keeper.close()
        receiver.close()

    def _step(self) -> None:
        attempt = self._current()
        if attempt is None:
            return
        if not attempt.is_claimed:
            self._launch(attempt)
            return
        keeper = self._keeper_of(attempt)
        if not self._is_settled(attempt):
            self._lookout.watch(attempt)
        trainer = attempt.trainer
        if trainer:
            self._facts.tell("trainer.started", attempt=attempt.number, pid=trainer.pid)
        rc = attempt.exit_code()
        if rc is not None:
            self._facts.tell("trainer.exited", attempt=attempt.number, **self._end(attempt, rc))
        if self._is_settled(attempt):
            return  # what appears from now on was put there for the next attempt
        keeper.step(ended=rc is not None)
        if rc is not None and keeper.finish(rc):
            keeper.tidy()
            self._lookout.last(attempt)
            self._facts.tell("agent.settled", attempt=attempt.number)

    def _end(self, attempt: Attempt, rc: int) -> Dict[str, Any]:
        before = attempt.read("baseline.json").get("oom_kills")
        killed = isinstance(before, int) and oom_kills() > before
        return {"rc": rc, "tail": log_tail(self._root, attempt), "oom_killed": killed}

    def _watch(self) -> None:
        attempt = self._attempt
        self._deadman.step(settled=attempt is None or self._is_settled(attempt))

    def _current(self) -> Optional[Attempt]:
        """The oldest attempt that is asked for and not settled, else the newest that was. One
        that never ran, for the box was restarted first, has no turn once a newer one is asked."""
        newest = None
        asked = list(self._asked())
        for attempt in asked:
            if attempt is not asked[-1] and not attempt.is_claimed:
                continue
            newest = attempt
            if not self._is_settled(attempt):
                break
        self._attempt = newest
        return newest

    def _asked(self) -> Iterator[Attempt]:
        for number in self._root.attempts():
            attempt = Attempt(self._root, number)
            if attempt.is_asked and attempt.refusal is None:
                yield attempt

    def _is_settled(self, attempt: Attempt) -> bool:
        return self._facts.was_told("agent.settled", attempt=attempt.number)

    def _launch(self, attempt: Attempt) -> None:
        """Everything is written before it is done, and a wrapper claims its attempt once: to do
        this again after a crash is safe."""
        if self._launched_at is not None:
            if time.monotonic() - self._launched_at > LAUNCH_TIMEOUT_S:
                self._launched_at = None
                attempt.refuse("tmux runs, but the trainer did not start within it")
            return
        try:
            spec = Spec.read(self._root, attempt.number)
            names = prepare.supersede(spec)
            if names:
                self._facts.tell("checkpoint.superseded", names=names)
            prepare.place(spec)
            prepare.write_baseline(attempt, spec)
            tmux.launch(self._root, attempt.number)
            self._launched_at = time.monotonic()
        except (OSError, ContractError, tmux.TmuxError) as error:
            attempt.refuse(str(error))

    def _keeper_of(self, attempt: Attempt) -> Keeper:
        if self._keeper is None or self._keeper.attempt != attempt:
            if self._keeper:
                self._keeper.close()
            self._launched_at = None
            spec = Spec.read(self._root, attempt.number)
            self._keeper = Keeper(self._root, self._facts, attempt, spec)
        return self._keeper

    def _interval(self) -> float:
        if self._attempt is None or self._is_settled(self._attempt):
            return IDLE_S
        busy = self._keeper is not None and self._keeper.is_busy
        return BUSY_S if busy or self._launched_at is not None else QUIET_S

    def _beat(self) -> None:
        now, pinning = time.monotonic(), self._keeper.pinning if self._keeper else []
        # That a save begins is worth a beat of its own: the controller connects meanwhile.
        if now - self._beat_at < BEAT_S and set(pinning) <= self._pinning:
            return
        self._beat_at, self._pinning = now, set(pinning)
        try:
            if self._keeper:
                self._keeper.tidy()  # first, for it frees what a full disk has to be freed of
        finally:
            write_slot(self._root.heartbeat, self._pulse())

    def _pulse(self) -> Dict[str, Any]:
        attempt, log = self._attempt, self._root.log
        claimed = attempt is not None and attempt.is_claimed
        rc = attempt.exit_code() if attempt and claimed else None
        return {
            "v": PROTOCOL,
            "at": utc_now(),
            "boot": self._facts.boot,
            "pid": os.getpid(),
            "attempt": attempt.number if attempt else None,
            "trainer": "none" if not claimed else "running" if rc is None else "exited",
            "rc": rc,
            "step": last_step(self._root.metrics),
            "settled": attempt is not None and self._is_settled(attempt),
            "log_bytes": log.stat().st_size if log.exists() else 0,
            "pinning": sorted(self._pinning),
            "push": self._pusher.pulse(),
            "held_bytes": self._keeper.held_bytes if self._keeper else 0,
            "free_bytes": shutil.disk_usage(self._root.path).free,
        }
