"""The forecast of the disks in a plan: what stays, how large, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.bandwidth import transfer_words
from orchestrator.core.forecast import GB, Forecast, Size
from orchestrator.core.keep import Keep
from orchestrator.core.plan import PhasePlan
from orchestrator.views.words import size

Row = tuple[str, str]


def disk_rows(plan: PhasePlan) -> Iterator[Row]:
    keep = plan.checkpoints.keep
    if keep:
        yield "keep", keep_words(keep)
    if plan.checkpoints.transfer:
        yield "transfer", transfer_words(plan.checkpoints.transfer)
    if plan.disk is None:
        yield "disk", "not known how large a checkpoint is: `checkpoints.size_gb` says it"
        return
    found = plan.disk
    saves = "an unknown number of" if found.saves is None else str(found.saves)
    yield "disk", f"{saves} checkpoints of {_range(found.checkpoint)} ({found.basis})"
    yield "  box", _box(plan, found)
    yield "  here", _here(plan, found)


def keep_words(keep: Keep) -> str:
    """Which checkpoints stay here."""
    words = [f"the newest {keep.last}"] if keep.last else []
    if keep.best:
        which = "lowest" if keep.best.mode == "min" else "highest"
        words.append(f"the best {keep.best_count} by {keep.best.name} ({which} is best)")
    if keep.every:
        words.append(f"every one at a multiple of {keep.every} steps")
    return f"{', '.join(words)}, and always the newest and the final; the others go from here"


def _box(plan: PhasePlan, found: Forecast) -> str:
    disk = plan.need.disk_gb * GB
    if found.on_box is None:
        return f"{_range(found.box)} of {size(disk)} with one; the trainer may keep them all"
    risk = ": MAY NOT FIT, ask for more resources.disk_gb" if found.box.high > disk else ""
    return f"{_range(found.box)} of {size(disk)}, {found.on_box} at once{risk}"


def _here(plan: PhasePlan, found: Forecast) -> str:
    free = plan.here_free_bytes
    of = "" if free is None else f" of {size(free)} that can be used"
    if found.here is None:
        return f"{_range(found.mirror)}{of} with one; all stay without checkpoints.keep"
    risk = ": MAY NOT FIT" if free is not None and found.mirror.high > free else ""
    return f"{_range(found.mirror)}{of}, {found.here} stay{risk}"


def _range(found: Size) -> str:
    low, high = size(found.low), size(found.high)
    return low if low == high else f"{low} to {high}"
