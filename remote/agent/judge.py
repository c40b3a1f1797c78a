"""Is a pinned checkpoint complete, and may it be sealed now? The layout says what belongs to it,
the containers whether they are whole, the kernel whether somebody writes, two looks apart whether
it lies still."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Tuple, Union

from remote.agent import layouts, writers
from remote.agent.intact import is_container, is_intact
from remote.agent.layouts import Context, Layout, Tree
from remote.agent.pin import Pin
from remote.agent.scan import Identity, Listing
from remote.contract import MARKER, ContractError

STILL_S = 0.5
LONG_STILL_S = 5.0  # when it is not certain that nobody writes
LOOKS = 2
_RANK_0 = ("model.safetensors", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt")


@dataclass(frozen=True)
class Complete:
    """What is to be sealed. `nonce`: the trainer waits to hear that it is pinned."""

    files: Tuple[str, ...]
    step: Optional[int]
    max_steps: Optional[int]
    world_size: Optional[int]
    nonce: Optional[str] = None


@dataclass(frozen=True)
class Waiting:
    """Complete as far as was looked, but it has to lie still."""

    why: str


@dataclass(frozen=True)
class Incomplete:
    """`why`: what a complete one would have. `weights`: what is there, if the model is whole and
    only what a resume needs is missing."""

    why: str
    weights: Optional[Complete] = None


Verdict = Union[Complete, Waiting, Incomplete]
IsNew = Callable[[str], bool]


def by_marker(pin: Pin, is_new: IsNew) -> Optional[Complete]:
    """The checkpoint as our own trainer's marker tells it, once all it lists is pinned.

    None without a marker, with one of another save (what it lists was written after it, or it is
    older than the trainer), or while something it lists is missing.
    Raises ContractError when it is no marker."""
    identity = pin.current.get(MARKER)
    if identity is None or not is_new(MARKER):
        return None
    with (pin.folder / MARKER).open("rb") as file:
        marker = layouts.read_marker(file.read(layouts.MAX_TEXT_BYTES))
    if marker.name != pin.name:
        raise ContractError("%s holds the marker of %r" % (pin.name, marker.name))
    for path, size in marker.files.items():
        held = pin.files.get(path)
        if held is None or held.size != size or held.mtime_ns > identity.mtime_ns:
            return None
    max_steps = layouts.final(Tree.below(pin.folder, marker.files)).max_steps
    return Complete(tuple(marker.files), marker.step, max_steps, marker.world_size, marker.nonce)


def by_layout(pin: Pin, layout: Layout, context: Context, *, is_new: IsNew, now: float) -> Verdict:
    """The layout's rule on the pinned tree.

    Where the name was sealed before, only files that were written since count: a save that
    overwrites an old one passes through states in which every name is there."""
    settled = context.ended or pin.gone
    if not settled and not _is_still(pin, STILL_S, now):
        return Waiting("it has to lie still for %.1f s" % STILL_S)
    current = _counted(pin, is_new)
    fresh = {path: identity for path, identity in current.items() if is_new(path)}
    found = layout.rule(pin.name, Tree.below(pin.folder, _sizes(fresh)), context)
    files = tuple(layouts.fetch_order(current))
    step = found.step if found.step is not None else layout.step_of(pin.name)
    complete = Complete(files, step, found.max_steps, found.world_size)
    torn = None if found.missing and not found.weights else _torn(pin.folder, files)
    if torn or found.missing:
        weights = complete if found.weights and not torn else None
        return Incomplete("whole %s" % torn if torn else str(found.missing), weights)
    doubtful = found.doubtful or _is_out_of_order(fresh)
    why = _unrest(pin, current, doubtful=doubtful, now=now, ended=context.ended)
    return Waiting(why) if why else complete


def by_root(folder: Path, listing: Listing) -> Optional[Complete]:
    """The weights that a trainer left in its output folder when it ended; None when there are
    none. `listing`: the files there that this attempt wrote."""
    files = {path: identity for path, identity in listing.items() if not _is_marker(path)}
    verdict = layouts.final(Tree.below(folder, _sizes(files)))
    if verdict.missing:
        return None
    return Complete(
        tuple(layouts.fetch_order(files)), verdict.step, verdict.max_steps, verdict.world_size
    )


def _counted(pin: Pin, is_new: IsNew) -> Listing:
    """Without what an older save left here and this one removed."""
    return {
        path: identity
        for path, identity in pin.current.items()
        if not _is_marker(path) and (pin.gone or path in pin.source or is_new(path))
    }


def _torn(folder: Path, files: Tuple[str, ...]) -> Optional[str]:
    found: List[str] = [path for path in files if is_container(path)]
    return next((path for path in found if not is_intact(folder / path)), None)


def _unrest(
    pin: Pin, current: Listing, *, doubtful: bool, now: float, ended: bool
) -> Optional[str]:
    state = writers.FREE if ended else writers.state_of(_writable(pin, current))
    if state == writers.BUSY:
        return "a file is still open for writing"
    if ended or pin.gone:
        return None
    need_s = LONG_STILL_S if doubtful or state == writers.UNKNOWN else STILL_S
    return None if _is_still(pin, need_s, now) else "it has to lie still for %.1f s" % need_s


def _writable(pin: Pin, current: Listing) -> List[Path]:
    """Who writes to a file that is held as a copy writes to the trainer's own."""
    places = [pin.origins.get(path) or pin.folder / path for path in current]
    return [place for place in places if place.exists()]


def _is_still(pin: Pin, need_s: float, now: float) -> bool:
    return now - pin.changed_at >= need_s and pin.looks >= LOOKS


def _is_out_of_order(files: Listing) -> bool:
    """Rank 0 writes trainer_state.json after these: younger ones may be of a save under way."""
    state = files.get(layouts.STATE)
    return state is not None and any(
        files[path].mtime_ns > state.mtime_ns for path in _RANK_0 if path in files
    )


def _is_marker(path: str) -> bool:
    return path == MARKER or path.startswith("." + MARKER)


def _sizes(listing: Mapping[str, Identity]) -> Dict[str, int]:
    return {path: identity.size for path, identity in listing.items()}
