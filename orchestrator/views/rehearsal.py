"""What a rehearsal found, for a person."""

from __future__ import annotations

import json
from collections.abc import Iterator

from orchestrator.core.codec import to_json
from orchestrator.core.rehearsal.report import Report


def rehearsal_text(report: Report) -> str:
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    if report.mistakes:
        yield f"Mistakes ({len(report.mistakes)}); each names the key to change"
        for each in report.mistakes:
            yield f"  x {each.key}: {each.words}"
            if each.advice:
                yield f"      {each.advice}"
    if report.proven:
        yield "Proven here"
        yield from (f"  + {each}" for each in report.proven)
    if report.unproven:
        yield "Only the real GPU can tell"
        yield from (f"  ? {each}" for each in report.unproven)
    said = "The rehearsal passed" if report.passed else "The rehearsal did not pass"
    yield f"{said}; it took {report.took_s:.0f} s and cost nothing."


def rehearsal_json(report: Report) -> str:
    """The same as one JSON object."""
    return json.dumps({"v": 1, "passed": report.passed, **to_json(report)}, sort_keys=True)
