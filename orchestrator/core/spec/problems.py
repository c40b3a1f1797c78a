"""What is wrong with a job file, and the error that carries all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import BadJobFile

MAX_SHOWN = 50
MISSING = "is missing"
Step = str | int
Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Problem:
    """One thing to mend: `file` as the user typed it or `--set`, `line` from 1 where known,
    `path` dotted (empty: the file as a whole)."""

    file: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.path, self.message) if part)


class JobFileError(BadJobFile):
    """A job file that cannot be used; `problems` in the order of the file, never empty."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=_reading_order))
        super().__init__(_listing(self.problems), hint=_HINT)


_HINT = "nothing was created and nothing bills; `gpujob schema` shows every key of a job file"


def dotted(steps: Steps) -> str:
    """`("data", 0, "from")` as `data[0].from`."""
    parts = (f"[{step}]" if isinstance(step, int) else f".{_word(step)}" for step in steps)
    return "".join(parts).removeprefix(".")


def _word(key: str) -> str:
    """A key on one line: no control character reaches the terminal, no novel fills it."""
    word = key if key.isprintable() else repr(key)[1:-1]
    return word if len(word) <= 60 else word[:57] + "..."


def _reading_order(problem: Problem) -> tuple[bool, int, str, str]:
    return (problem.line is None, problem.line or 0, problem.path, problem.message)


def _listing(problems: tuple[Problem, ...]) -> str:
    lines = [str(problem) for problem in problems[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        lines.append(f"and {len(problems) - MAX_SHOWN} more problems")
    return "\n".join(lines)
