"""Marks: what an instance carries from birth, so that it can be told whose it is."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

# Of a live run; of this ledger, and of no live run; of another ledger.
Owner = Literal["run", "orphan", "foreign"]
_MARK = re.compile(r"gpujob-([0-9a-f]{8})-([A-Za-z0-9][A-Za-z0-9_.-]*-[0-9]+)")


@dataclass(frozen=True)
class Mark:
    """`ledger` names the installation, `instance` the instance of one of its runs."""

    ledger: str
    instance: str


@dataclass(frozen=True)
class Marked:
    """One instance with a mark as its provider lists it, and whose it is."""

    provider: str
    provider_id: str
    mark: str
    owner: Owner
    state: str
    created_at: datetime
    usd_per_hour: float

    @property
    def name(self) -> str:
        return f"{self.provider} {self.provider_id}"


def make_mark(ledger_id: str, instance: str) -> str:
    return f"gpujob-{ledger_id}-{instance}"


def parse_mark(text: str) -> Mark | None:
    """The mark that `text` is; None for anything else: it is not ours to talk about."""
    found = _MARK.fullmatch(text)
    return Mark(found[1], found[2]) if found else None


def owner_of(mark: str, ledger_id: str, live: Container[str]) -> Owner | None:
    """Whose an instance with this mark is, given the marks of the live runs; None when it is no
    mark of gpujob."""
    parsed = parse_mark(mark)
    if parsed is None:
        return None
    if parsed.ledger != ledger_id:
        return "foreign"
    return "run" if mark in live else "orphan"
