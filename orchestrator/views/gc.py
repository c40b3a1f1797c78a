"""What carries a mark, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.core.marks import Marked, Owner
from orchestrator.views.runs import table
from orchestrator.views.words import dollars, duration

HEAD = ("PROVIDER", "ID", "MARK", "STATE", "AGE", "$/H", "WHOSE")
_WHOSE: Mapping[Owner, str] = {
    "run": "a live run's",
    "orphan": "ours, and no live run's",
    "foreign": "another ledger's, left alone",
}


def marked_table(marked: Sequence[Marked], now: datetime) -> str:
    return table(HEAD, [_row(each, now) for each in marked])


def marked_record(marked: Marked) -> dict[str, Any]:
    """One instance for `--json`."""
    return {
        "provider": marked.provider,
        "provider_id": marked.provider_id,
        "mark": marked.mark,
        "owner": marked.owner,
        "state": marked.state,
        "created_at": marked.created_at,
        "usd_per_hour": marked.usd_per_hour,
    }


def _row(marked: Marked, now: datetime) -> tuple[str, ...]:
    age = duration(max(0.0, (now - marked.created_at).total_seconds()))
    price = dollars(marked.usd_per_hour)
    whose = _WHOSE[marked.owner]
    return (marked.provider, marked.provider_id, marked.mark, marked.state, age, price, whose)
