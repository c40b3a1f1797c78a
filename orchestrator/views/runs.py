"""Runs and checkpoints as tables of plain columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from orchestrator.core.run import Run, Seal
from orchestrator.views.words import dollars, duration, size

NOTE = 100


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns, left aligned, two spaces apart."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def runs_table(runs: Sequence[Run], now: datetime) -> str:
    head = ("RUN", "STATE", "AGE", "CHECKPOINTS", "COST", "")
    return table(head, [_run_row(run, now) for run in runs])


def run_record(run: Run, now: datetime) -> dict[str, Any]:
    """One run for `--json`."""
    return {
        "run": run.id,
        "name": run.name,
        "state": str(run.state),
        "reason": run.reason,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
        "cost_usd": round(run.spent_usd(now), 6),
        "instance_hours": round(run.rented_hours(now), 6),
        "still_billing": [each.id for each in run.still_billing],
        "attempts": len(run.attempts),
        "checkpoints": len(run.mirrored),
    }


def checkpoints_table(run: Run) -> str:
    head = ("CHECKPOINT", "STEP", "SIZE", "WHERE")
    return table(head, [_seal_row(run, seal) for seal in run.seals])


def checkpoint_record(run: Run, seal: Seal) -> dict[str, Any]:
    return {
        "name": seal.name,
        "step": seal.step,
        "size_bytes": seal.size_bytes,
        "digest": seal.digest,
        "final": seal.final,
        "attempt": seal.attempt,
        "here": run.mirrored.get(seal.digest),
    }


def _run_row(run: Run, now: datetime) -> Sequence[str]:
    end = run.finished_at or now
    age = duration((end - (run.created_at or end)).total_seconds())
    note = run.reason
    if run.still_billing and (run.outcome or run.terminal):
        note = f"still billing; {note}"
    note = " ".join(note.split())
    note = note if len(note) <= NOTE else f"{note[:NOTE]}…"
    return (
        run.id,
        str(run.state),
        age,
        str(len(run.mirrored)),
        dollars(run.spent_usd(now)),
        note,
    )


def _seal_row(run: Run, seal: Seal) -> Sequence[str]:
    here = run.mirrored.get(seal.digest)
    lost = {each.id for each in run.instances if each.lost or each.gone_at}
    where = here or ("lost with its box" if seal.instance in lost else f"on {seal.instance}")
    step = "" if seal.step is None else str(seal.step)
    return (seal.name, step, size(seal.size_bytes), seal.failed or where)
