"""Looks, every few seconds and in a thread of its own, at what a silent trainer is known by: its
machine, and the files that it writes beside its log. A GPU that does not answer keeps nobody else
waiting."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from remote.agent.attempt import Attempt
from remote.agent.complaints import log_error
from remote.agent.machine import Load, look_at_gpus
from remote.agent.paths import Root
from remote.agent.procs import Process, descendants
from remote.agent.sights import Sights
from remote.agent.spec import Spec
from remote.contract import ContractError

REPORT_S = 10.0
MOST_FILE = 1024 * 1024
MOST_TAIL = 64 * 1024
MOST_ENTRIES = 2000
DEEP = 2
HELD_GB = 1.0  # of a GPU's memory: an idle driver has less
LOOKS_AFTER = 4  # a GPU's memory is free some seconds after its process is gone
TRAINER_LOG = "trainer_log.jsonl"  # LLaMA-Factory's, in its output folder


class Lookout:
    """`watch` says which attempt is looked at from now on; None: none."""

    def __init__(
        self,
        root: Root,
        sights: Sights,
        *,
        clock: Callable[[], float] = time.monotonic,
        gpus: Callable[[], Optional[List[Dict[str, float]]]] = look_at_gpus,
    ) -> None:
        self._root = root
        self._sights = sights
        self._clock = clock
        self._gpus = gpus
        self._lock = threading.Lock()
        self._load = Load(clock)
        self._attempt: Optional[Attempt] = None
        self._looked_after: Tuple[Optional[Attempt], int] = (None, 0)
        self._spec: Optional[Spec] = None
        self._moved: Any = None
        self._moved_at = clock()
        self._looked_at = float("-inf")
        self._reports = 0
        self._report_at = float("-inf")
        self._sent: Dict[str, Tuple[int, int]] = {}
        self._tail: Dict[Path, int] = {}

    def run(self, end: threading.Event) -> None:
        """Look until `end` is set."""
        while not end.wait(min(1.0, self._every_s)):
            try:
                if self._clock() - self._looked_at >= self._every_s:
                    self.look()
            except Exception:  # nothing that is looked at is worth more than the looking
                log_error()

    def watch(self, attempt: Optional[Attempt]) -> None:
        if attempt == self._attempt:
            return
        with self._lock:
            self._attempt, self._spec = attempt, None
            self._load.forget()
            self._moved, self._moved_at = None, self._clock()

    def look(self) -> None:
        """One look at the attempt that is watched, while it runs."""
        self._looked_at = self._clock()
        gpus = self._gpus() if self._attempt else None
        with self._lock:
            attempt, spec = self._attempt, self._read_spec()
            if attempt is None or spec is None:
                return
            if not attempt.is_running:
                self._look_after(attempt, gpus)
                return
            self._files(attempt, spec)
            load = self._load.look(_processes(attempt))
            silent_s = round(self._silent_s(spec), 1)
            told = {"silent_s": silent_s, "log_bytes": _size(self._root.log), "gpus": gpus, **load}
            self._sights.tell("machine", attempt.number, dear=True, **told)

    def last(self, attempt: Attempt) -> None:
        """What the trainer wrote down before it ended."""
        self.watch(attempt)
        with self._lock:
            spec = self._read_spec()
            if spec is not None:
                self._files(attempt, spec)

    def take_report(self, body: Dict[str, Any]) -> None:
        """A progress report: a sign of life each, and now and then worth a line."""
        self._reports += 1
        attempt = self._attempt
        if attempt and self._clock() - self._report_at >= REPORT_S:
            self._report_at = self._clock()
            self._sights.tell("report", attempt.number, body=body)

    def _look_after(self, attempt: Attempt, gpus: Optional[List[Dict[str, float]]]) -> None:
        """Once: what an ended trainer still holds of a GPU's memory, when it has let go of it or
        had the time to."""
        before = self._looked_after[1] if self._looked_after[0] == attempt else 0
        if not gpus or before >= LOOKS_AFTER:
            return
        is_free = max(each["used_gb"] for each in gpus) <= HELD_GB
        looks = LOOKS_AFTER if is_free else before + 1
        self._looked_after = attempt, looks
        if looks == LOOKS_AFTER:
            self._sights.tell("machine", attempt.number, dear=True, ended=True, gpus=gpus)

    @property
    def _every_s(self) -> float:
        return self._spec.look_s if self._spec else 1.0

    def _read_spec(self) -> Optional[Spec]:
        if self._spec is None and self._attempt is not None and self._attempt.is_claimed:
            try:
                self._spec = Spec.read(self._root, self._attempt.number)
            except (OSError, ContractError):
                return None
            log_from = self._attempt.read("baseline.json").get("log", 0)
            self._sights.tell("began", self._attempt.number, dear=True, log_from=log_from)
        return self._spec

    def _silent_s(self, spec: Spec) -> float:
        """Since the log, the metrics or a checkpoint changed, or a report came. Changes are
        counted and no times compared: a clock that is set is no silence."""
        sizes = tuple(_size(path) for path in (self._root.log, self._root.metrics))
        moved = (sizes, self._reports, _newest(spec.checkpoints))
        if moved != self._moved:
            self._moved, self._moved_at = moved, self._clock()
        return self._clock() - self._moved_at

    def _files(self, attempt: Attempt, spec: Spec) -> None:
        self._follow(attempt, spec.checkpoints / TRAINER_LOG)
        for name in spec.watched:
            self._send(attempt, spec.workdir / name, name)

    def _follow(self, attempt: Attempt, path: Path) -> None:
        """The lines that have come. Of a file that an earlier attempt wrote, and another agent
        saw, nobody can tell whose line is whose: only what comes from now on is told."""
        size = _size(path)
        at = self._tail.get(path, 0 if attempt.number == 1 else size)
        data = _read(path, MOST_TAIL, at if at <= size else 0)
        whole = data[: data.rfind(b"\n") + 1]
        lines = [line.decode("utf-8", "replace") for line in whole.splitlines()]
        self._tail[path] = (at if at <= size else 0) + len(whole)
        if lines:
            self._sights.tell("trainer_log", attempt.number, lines=lines)

    def _send(self, attempt: Attempt, path: Path, name: str) -> None:
        """The object that a file holds, whenever it is another one; half a file is none yet."""
        look = _look(path)
        if look is None or look == self._sent.get(name):
            return
        try:
            data = json.loads(_read(path, MOST_FILE, 0))
        except (ValueError, RecursionError):
            return
        if not isinstance(data, dict):
            return
        if self._sights.tell("file", attempt.number, dear=True, name=name, data=data):
            self._sent[name] = look


def _processes(attempt: Attempt) -> List[Process]:
    wrapper, trainer = attempt.wrapper, attempt.trainer
    below = descendants([each for each in (wrapper, trainer) if each])
    return [each for each in dict.fromkeys(below) if each != wrapper]


def _newest(folder: Path) -> int:
    """When something below `folder` changed last; of a bounded number of entries."""
    newest = 0
    for count, each in enumerate(_entries(folder, DEEP)):
        if count >= MOST_ENTRIES:
            break
        newest = max(newest, each)
    return newest


def _entries(folder: Path, deep: int) -> Iterator[int]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        try:
            yield entry.stat(follow_symlinks=False).st_mtime_ns
            is_folder = entry.is_dir(follow_symlinks=False)
        except OSError:
            continue
        if is_folder and deep:
            yield from _entries(Path(entry.path), deep - 1)


def _look(path: Path) -> Optional[Tuple[int, int]]:
    try:
        about = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_FILE:
        return None
    return about.st_size, about.st_mtime_ns


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path, most: int, offset: int) -> bytes:
    """Never waits, whatever `path` names."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        try:
            file.seek(offset)
            return file.read(most) or b""
        except OSError:
            return b""
