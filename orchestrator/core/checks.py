"""What `doctor` finds: one thing, whether it is well, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """`fail` keeps jobs from running; `warn` keeps some of them, and says which."""

    what: str
    state: State
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Probe:
    """An API as it answers without a key: how far this machine's clock is ahead of the API's;
    `trouble` when it did not answer."""

    url: str
    ahead_s: float | None = None
    trouble: str = ""
