"""Is a pinned checkpoint complete, and may it be sealed now? The layout says what belongs to it,
the kernel whether somebody writes, two looks apart whether it lies still."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Mapping, Optional, Tuple, Union

from remote.agent import layouts, writers
from remote.agent.pin import Pin
from remote.agent.ranks import Ranks
from remote.agent.scan import Identity, Listing, step_of
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
    """Complete by its names, but it has to lie still."""

    why: str


@dataclass(frozen=True)
class Incomplete:
    """`why`: what a complete one would have."""

    why: str


Verdict = Union[Complete, Waiting, Incomplete]


def by_marker(pin: Pin, is_new: Callable[[str], bool]) -> Optional[Complete]:
    """The checkpoint as our own trainer's marker tells it, once all it lists is pinned.

    None without a marker, with one of another save (what it lists was written after it, or it is
    older than the trainer), or while something it lists is missing.
    Raises ContractError when it is no marker."""
    identity = pin.current.get(MARKER)
    if identity is None or not is_new(MARKER):
        return None
    marker = layouts.read_marker(_read(pin.folder / MARKER))
    if marker.name != pin.name:
        raise ContractError("%s holds the marker of %r" % (pin.name, marker.name))
    for path, size in marker.files.items():
        held = pin.files.get(path)
        if held is None or held.size != size or held.mtime_ns > identity.mtime_ns:
            return None
    max_steps = layouts.final(marker.files, _texts(pin.folder, marker.files)).max_steps
    return Complete(tuple(marker.files), marker.step, max_steps, marker.world_size, marker.nonce)


def by_layout(
    pin: Pin, *, is_new: Callable[[str], bool], ranks: Ranks, now: float, ended: bool
) -> Verdict:
    """The Hugging Face rule on the pinned tree.

    Where the name was sealed before, only files that were written since count: a save that
    overwrites an old one passes through states in which every name is there. `ended`: no trainer
    runs, so nothing more comes."""
    current = {path: identity for path, identity in pin.current.items() if not _is_marker(path)}
    fresh = {path: identity for path, identity in current.items() if is_new(path)}
    sizes = _sizes(fresh)
    verdict = layouts.huggingface(
        step_of(pin.name),
        sizes,
        _texts(pin.folder, sizes),
        world_size=ranks.count(),
        at_least=ranks.written,
    )
    if verdict.missing:
        return Incomplete(verdict.missing)
    doubtful = verdict.doubtful or _is_out_of_order(fresh)
    why = _unrest(pin, current, doubtful=doubtful, now=now, ended=ended)
    if why:
        return Waiting(why)
    return Complete(tuple(current), verdict.step, verdict.max_steps, verdict.world_size)


def by_root(folder: Path, listing: Listing) -> Optional[Complete]:
    """The weights that a trainer left in its output folder when it ended; None when there are
    none. `listing`: the files there that this attempt wrote."""
    files = {path: identity for path, identity in listing.items() if not _is_marker(path)}
    sizes = _sizes(files)
    verdict = layouts.final(sizes, _texts(folder, sizes))
    if verdict.missing:
        return None
    return Complete(tuple(files), verdict.step, verdict.max_steps, None)


def _unrest(
    pin: Pin, current: Listing, *, doubtful: bool, now: float, ended: bool
) -> Optional[str]:
    state = writers.FREE if ended else writers.state_of(pin.folder / path for path in current)
    if state == writers.BUSY:
        return "a file is still open for writing"
    if ended or pin.gone:
        return None
    need_s = LONG_STILL_S if doubtful or state == writers.UNKNOWN else STILL_S
    if now - pin.changed_at < need_s or pin.looks < LOOKS:
        return "it has to lie still for %.1f s" % need_s
    return None


def _is_out_of_order(files: Listing) -> bool:
    """Rank 0 writes trainer_state.json after these: younger ones may be of a save under way."""
    state = files[layouts.STATE]
    return any(files[path].mtime_ns > state.mtime_ns for path in _RANK_0 if path in files)


def _is_marker(path: str) -> bool:
    return path == MARKER or path.startswith("." + MARKER)


def _sizes(listing: Mapping[str, Identity]) -> Dict[str, int]:
    return {path: identity.size for path, identity in listing.items()}


def _texts(folder: Path, sizes: Mapping[str, int]) -> Dict[str, bytes]:
    found: Dict[str, bytes] = {}
    for path in layouts.texts_needed(sizes):
        with contextlib.suppress(FileNotFoundError):
            found[path] = _read(folder / path)
    return found


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(layouts.MAX_TEXT_BYTES)
