"""What a rehearsal works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.spec import Job
from orchestrator.flows.phase_plan import Shop
from orchestrator.flows.rehearsal.props import Makers
from orchestrator.ports import Clock, Ledger, Provider

STEPS = 40
LIMIT_S = 240.0


@dataclass(frozen=True)
class Bench:
    """`folder` holds all of it; `turn` makes one step of the run and says how many runs live;
    `standin` is the folder of our stand-in trainer; `importable` whether a module is here;
    `limit_s` how long a phase may take; `plan` plans the job as it really is."""

    folder: Path
    state: Path
    shop: Shop
    ledger: Ledger
    provider: Provider
    clock: Clock
    turn: Callable[[str], int]
    plan: Callable[[Job], object]
    makers: Makers
    standin: Path
    python: str
    importable: Callable[[str], bool]
    environ: Mapping[str, str]
    tell: Callable[[str], None] = lambda words: None
    limit_s: float = LIMIT_S
    steps: int = STEPS
