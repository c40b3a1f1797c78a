"""The clock and the ledger: what every verb needs, and nothing heavier."""

from __future__ import annotations

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.holder import Holder
from orchestrator.settings import Settings


def make_clock() -> SystemClock:
    return SystemClock()


def open_ledger(settings: Settings) -> SqliteLedger:
    return SqliteLedger(settings.ledger, make_clock(), Holder.current())
