"""What `doctor` found, as a table, what to do below each thing that is not well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.checks import Check


def checks_text(checks: Sequence[Check]) -> str:
    width = max((len(check.what) for check in checks), default=0)
    return "\n".join(line for check in checks for line in _lines(check, width))


def _lines(check: Check, width: int) -> Iterator[str]:
    yield f"{check.state:<4}  {check.what.ljust(width)}  {check.found}"
    if check.advice and check.state != "ok":
        yield f"{'':<4}  {'':<{width}}  -> {check.advice}"
