"""Red flags: what a person has to act on, what it costs meanwhile, and what to do."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.holdings import is_stored, missing_here
from orchestrator.core.run import DiskLow, Run
from orchestrator.views.words import dollars, duration, size


def red_flags(run: Run, now: datetime) -> list[str]:
    """A line each, the most urgent first; none for a run that has ended."""
    if run.terminal:
        return []
    flags = [_paused(run, now)] if run.paused else []
    flags += [_low(where, low) for where, low in sorted(run.disk_low.items())]
    if run.push_trouble:
        flags.append(f"checkpoints do not reach S3: {run.push_trouble}")
    waiting = run.phase.waiting if run.phase else None
    if waiting:
        flags.append(_asked(run, waiting.reason))
    if _waits_for_store(run):
        flags.append(f"checkpoints cannot be fetched from S3: {run.store_trouble}")
    return flags


def flag_words(run: Run) -> str:
    """The same in a few words, for a row of a table."""
    words = [f"mirror paused ({run.paused.reason})"] if run.paused else []
    words += [f"disk low ({where})" for where in sorted(run.disk_low)]
    words += ["S3 push fails"] if run.push_trouble else []
    words += ["waits for you"] if run.phase and run.phase.waiting else []
    words += ["S3 fetch fails"] if _waits_for_store(run) else []
    return "" if run.terminal or not words else f"RED FLAG: {', '.join(words)}"


def _asked(run: Run, reason: str) -> str:
    burn = burn_words(run)
    cost = f"Its box is kept for a while and costs {burn}." if burn else "Nothing bills meanwhile."
    return f"a person is asked: {reason}. {cost} `gpujob approve {run.id}`, with --no to end it"


def burn_words(run: Run) -> str:
    """What a minute of waiting costs; empty when nothing is paid."""
    per_hour = sum(each.price_usd_per_hour for each in run.still_billing)
    return f"{dollars(per_hour / 60)} a minute ({dollars(per_hour)}/h)" if per_hour > 0 else ""


def _waits_for_store(run: Run) -> bool:
    """What a box brought home meanwhile nobody misses in the store."""
    return bool(run.store_trouble) and any(is_stored(run, seal) for seal in missing_here(run))


def _paused(run: Run, now: datetime) -> str:
    assert run.paused
    since = duration((now - run.paused.at).total_seconds())
    burn = burn_words(run)
    held = "The run is over and waits for this alone" if run.outcome else "Training goes on"
    cost = f", which costs {burn}" if burn else ""
    return f"the mirror takes nothing since {since}: {run.paused.message} {held}{cost}."


def _low(where: str, low: DiskLow) -> str:
    whose = "the box's disk" if where == "box" else "the disk of the mirror here"
    full = f", full at about {low.full_at:%Y-%m-%d %H:%M} UTC" if low.full_at else ""
    what = (
        "let the trainer keep fewer checkpoints, or ask for more `resources.disk_gb`"
        if where == "box"
        else "free some space, or set `checkpoints.keep`"
    )
    return (
        f"{whose} has {size(low.free_bytes)} left and the checkpoints to come need"
        f" {size(low.needed_bytes)}{full}: {what}"
    )
