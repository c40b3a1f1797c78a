"""A bar for bytes that are copied or hashed: drawn on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from orchestrator.views.words import transfer_words

LINE_S = 5.0


class Bar:
    """Words go to stderr: stdout is for the result. `time_s` is a monotonic clock."""

    def __init__(self, label: str, total: int, *, live: bool, time_s: Callable[[], float]) -> None:
        self._label = label
        self._total = total
        self._time_s = time_s
        self._began_s = self._told_s = time_s()
        self._done = 0
        self._progress = _drawn() if live else None
        self._task = self._progress.add_task(label, total=total) if self._progress else None

    def __enter__(self) -> Bar:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()

    def add(self, size_bytes: int) -> None:
        self._done += size_bytes
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=self._done)
            return
        now_s = self._time_s()
        if now_s - self._told_s >= LINE_S:
            self._told_s = now_s
            rate = self._done / (now_s - self._began_s)
            words = transfer_words(self._label, self._done, self._total, rate)
            click.echo(f"          {words}", err=True)


def _drawn() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
