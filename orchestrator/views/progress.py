"""How far the training is: read from the run's append files, at most a tail at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.run import Run

TAIL_BYTES = 64 * 1024
CURVE = 60


@dataclass(frozen=True)
class Picture:
    """Steps of the newest attempt, oldest first, and the daemon's own words about now."""

    steps: tuple[dict[str, Any], ...]
    now: dict[str, Any]

    @property
    def last(self) -> dict[str, Any]:
        return self.steps[-1] if self.steps else {}


class Progress:
    """Looks at one run's folder. What is missing or torn is simply not shown."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(self, run: Run) -> Picture:
        attempt = run.attempt
        metrics = self._folder / attempt.instance / "metrics.jsonl" if attempt else None
        told = _tail(metrics) if metrics else ()
        number = attempt.number if attempt else 0
        steps = tuple(each for each in told if each.get("attempt", number) == number)
        return Picture(steps[-CURVE:], _object(self._folder / "now.json"))


def _tail(path: Path) -> tuple[dict[str, Any], ...]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return ()
    return tuple(found for line in lines if (found := _step(line)) is not None)


def _step(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    good = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if good else None


def _object(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
