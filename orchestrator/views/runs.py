"""Runs and checkpoints as tables of plain columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from orchestrator.core.choose import best_of, metric_of
from orchestrator.core.metrics import Metric
from orchestrator.core.phase_of import phase_name, serial_of
from orchestrator.core.run import Run, RunState, Seal
from orchestrator.core.where import Place, places, state_of
from orchestrator.views.flags import flag_words, red_flags
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
        "phase": run.phase.name if run.phase else None,
        "waiting": run.phase.waiting.reason if run.phase and run.phase.waiting else None,
        "phases": [phase_record(run, at) for at in range(len(run.phases))],
        "checkpoints": len(run.mirrored),
        "red_flags": red_flags(run, now),
    }


def phase_record(run: Run, serial: int) -> dict[str, Any]:
    """One phase for `--json`; one that began anew is there twice."""
    phase = run.phases[serial]
    return {
        "phase": phase.name,
        "began_at": phase.began_at,
        "verdict": phase.verdict or None,
        "reasons": list(phase.reasons),
        "start": phase.start.name if phase.start else None,
        "until_step": phase.until_step,
        "ended": phase.ended or None,
        "mirror": phase.mirror,
    }


def checkpoints_table(run: Run) -> str:
    """Each seal that a box reported, oldest first; the best by its metric says so."""
    metric, best = metric_of(run), best_of(run)
    head = ("CHECKPOINT", "STEP", "SIZE", _head(metric), "GEN", "STATE", "WHERE")
    rows = [_seal_row(run, seal, metric, best) for seal in run.seals]
    if len(run.phases) < 2:
        return table(head, rows)
    names = [phase_name(run, serial_of(run, seal)) for seal in run.seals]
    return table(("PHASE", *head), [(name, *row) for name, row in zip(names, rows, strict=True)])


def checkpoint_record(run: Run, seal: Seal) -> dict[str, Any]:
    """One checkpoint for `--json`. `here` is its folder, or null."""
    best = best_of(run)
    return {
        "name": seal.name,
        "step": seal.step,
        "size_bytes": seal.size_bytes,
        "digest": seal.digest,
        "final": seal.final,
        "attempt": seal.attempt,
        "phase": phase_name(run, serial_of(run, seal)) or None,
        "generation": seal.generation,
        "state": state_of(run, seal),
        "failed": seal.failed,
        "metrics": dict(run.metrics.get(seal.digest, {})),
        "best": best is not None and best.digest == seal.digest,
        "here": run.mirrored.get(seal.digest),
        "places": [{"kind": each.kind, "at": each.at} for each in places(run, seal)],
    }


def _run_row(run: Run, now: datetime) -> Sequence[str]:
    end = run.finished_at or now
    age = duration((end - (run.created_at or end)).total_seconds())
    note = run.reason
    if run.phase and run.phase.waiting and run.state is RunState.WAITING:
        note = f"`gpujob approve {run.id}`: {run.phase.waiting.reason}"
    if run.still_billing and (run.outcome or run.terminal):
        note = f"still billing; {note}"
    flag = flag_words(run)
    note = _short(f"{flag}; {note}" if flag and note else flag or note)
    return (
        run.id,
        str(run.state),
        age,
        str(len(run.mirrored)),
        dollars(run.spent_usd(now)),
        note,
    )


def _head(metric: Metric | None) -> str:
    return metric.name.upper() if metric else "METRIC"


def _seal_row(run: Run, seal: Seal, metric: Metric | None, best: Seal | None) -> Sequence[str]:
    value = run.metrics.get(seal.digest, {}).get(metric.name) if metric else None
    shown = "" if value is None else f"{value:.4g}"
    if best and best.digest == seal.digest:
        shown += " (best)"
    where = ", ".join(_place(each) for each in places(run, seal))
    return (
        seal.name,
        "" if seal.step is None else str(seal.step),
        size(seal.size_bytes),
        shown,
        str(seal.generation),
        state_of(run, seal),
        _short(seal.failed) if seal.failed else where or "nowhere",
    )


def _place(place: Place) -> str:
    return {"here": place.at, "box": f"on {place.at}", "s3": place.at}[place.kind]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= NOTE else f"{text[:NOTE]}…"
