"""How a run ended: what is here, what was trained twice, what it took and cost."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.run import Run
from orchestrator.views.cost import billing_words
from orchestrator.views.words import dollars, duration


def ending_text(run: Run, now: datetime) -> str:
    """A few lines for the end of `launch`, `watch` and `teardown`."""
    lines = [
        f"{run.id}: {run.state}, {run.reason}" if run.reason else f"{run.id}: {run.state}",
        f"  checkpoints here   {len(run.mirrored)} in {_mirrors(run)}",
        f"  attempts           {len(run.attempts)} on {len(run.instances)} instances",
        f"  rented             {duration(run.rented_hours(now) * 3600)}, "
        f"{dollars(run.spent_usd(now))}",
    ]
    if run.missing:
        lines.insert(2, f"  not here           {', '.join(run.missing)}")
    label = "STILL BILLING" if run.still_billing else "still billing"
    lines.append(f"  {label}      {billing_words(run)}")
    return "\n".join(lines)


def _mirrors(run: Run) -> str:
    folders = dict.fromkeys(phase.mirror for phase in run.phases if phase.mirror)
    return ", ".join(folders) or run.mirror
