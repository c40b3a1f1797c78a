"""Tasks as daemon threads: each owns its connections, the scheduler only looks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.ports import Clock, Task, TaskContext, TaskState

MAX_REPORTS = 256


@dataclass
class _Running:
    started_at: datetime
    state: TaskState = "running"
    result: Any = None
    error: Exception | None = None
    reports: list[Any] = field(default_factory=list)
    cancelled: bool = False
    undo: list[Callable[[], None]] = field(default_factory=list)


class ThreadTasks:
    """The port Tasks. Waking the clock is how a finished task is noticed at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._drained = threading.Condition(self._lock)
        self._tasks: dict[str, _Running] = {}

    def start(self, key: str, fn: Callable[[TaskContext], Any]) -> bool:
        with self._lock:
            if key in self._tasks:
                return False
            running = self._tasks[key] = _Running(self._clock.now())
        thread = threading.Thread(target=self._work, args=(running, fn), name=key, daemon=True)
        thread.start()
        return True

    def all(self, prefix: str = "") -> dict[str, Task]:
        with self._lock:
            return {
                key: Task(key, each.state, each.started_at, each.result, each.error)
                for key, each in self._tasks.items()
                if key.startswith(prefix)
            }

    def reports(self, key: str) -> list[Any]:
        with self._lock:
            running = self._tasks.get(key)
            if running is None:
                return []
            told, running.reports = running.reports, []
            self._drained.notify_all()
            return told

    def take(self, key: str) -> Task | None:
        with self._lock:
            each = self._tasks.get(key)
            if each is None or each.state == "running":
                return None
            del self._tasks[key]
            return Task(key, each.state, each.started_at, each.result, each.error)

    def cancel(self, key: str) -> None:
        with self._lock:
            running = self._tasks.get(key)
            if running is None:
                return
            running.cancelled = True
            self._drained.notify_all()
            undo, running.undo = running.undo, []
        for each in undo:
            each()

    def forget(self, prefix: str) -> None:
        for key in self.all(prefix):
            self.cancel(key)
            with self._lock:
                self._tasks.pop(key, None)

    def _work(self, running: _Running, fn: Callable[[TaskContext], Any]) -> None:
        context = TaskContext(
            report=lambda said: self._report(running, said),
            cancelled=lambda: running.cancelled,
            on_cancel=lambda undo: self._on_cancel(running, undo),
        )
        try:
            result = fn(context)
        except Exception as error:
            self._end(running, "failed", None, error)
        else:
            self._end(running, "done", result, None)

    def _report(self, running: _Running, said: Any) -> None:
        with self._drained:
            # A box that talks faster than the scheduler listens is made to wait.
            while len(running.reports) >= MAX_REPORTS and not running.cancelled:
                self._drained.wait()
            running.reports.append(said)
        self._clock.wake()

    def _on_cancel(self, running: _Running, undo: Callable[[], None]) -> None:
        with self._lock:
            if not running.cancelled:
                running.undo.append(undo)
                return
        undo()

    def _end(
        self, running: _Running, state: TaskState, result: Any, error: Exception | None
    ) -> None:
        with self._lock:
            running.state, running.result, running.error = state, result, error
        self._clock.wake()
