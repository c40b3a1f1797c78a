"""What `checkpoints verify` found, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.printable import printable
from orchestrator.core.run import Run, Seal
from orchestrator.core.where import can_come, places
from orchestrator.views.runs import table
from orchestrator.views.words import size


@dataclass(frozen=True)
class Verdict:
    """One published checkpoint and a line for each file that is not what was verified."""

    name: str
    path: str
    digest: str
    size_bytes: int
    problems: tuple[str, ...]


def verdicts_text(run: Run, verdicts: Sequence[Verdict]) -> str:
    """A row each, and below a damaged one what is wrong and what to do."""
    if not verdicts:
        return "no checkpoint is published here yet"
    head = ("CHECKPOINT", "SIZE", "", "PATH")
    rows = [
        (v.name, size(v.size_bytes), "DAMAGED" if v.problems else "ok", v.path) for v in verdicts
    ]
    lines = table(head, rows).split("\n")
    text = [lines[0]]
    for line, verdict in zip(lines[1:], verdicts, strict=True):
        text += [line, *(f"  {printable(problem)}" for problem in verdict.problems)]
        text += [f"  -> {advice(run, verdict)}"] if verdict.problems else []
    return "\n".join(text)


def verdict_record(run: Run, verdict: Verdict) -> dict[str, Any]:
    """One checkpoint for `--json`."""
    record: dict[str, Any] = {"name": verdict.name, "path": verdict.path, "digest": verdict.digest}
    record |= {"size_bytes": verdict.size_bytes, "ok": not verdict.problems}
    what = advice(run, verdict) if verdict.problems else None
    return {**record, "problems": list(verdict.problems), "advice": what}


def advice(run: Run, verdict: Verdict) -> str:
    """What to do about a damaged checkpoint."""
    other = run.mirrored.get(verdict.digest)
    if other not in (None, verdict.path):
        return f"it was fetched again into {other}; this folder may go"
    seal = _seal(run, verdict.digest)
    elsewhere = [each.at for each in places(run, seal) if each.kind != "here"] if seal else []
    if seal and can_come(run, seal):
        return f"`gpujob pull {run.id}:{seal.name}` fetches it again from {elsewhere[0]}"
    if elsewhere:
        return f"it is still at {elsewhere[0]}"
    return "nobody else has it any more: restore the folder from a copy of yours"


def _seal(run: Run, digest: str) -> Seal | None:
    return next((seal for seal in reversed(run.seals) if seal.digest == digest), None)
