"""How fast checkpoints, code and data may travel, and when. Pure: it is told the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

MB = 1e6


@dataclass(frozen=True)
class Window:
    """From `begin` to `end` ("22:00"), past midnight when it ends before it begins. Without a cap
    of its own it has the general one; 0 is a pause."""

    begin: str
    end: str
    mb_per_s: float | None = None


@dataclass(frozen=True)
class Transfer:
    """`checkpoints.transfer`: the general cap, and the hours that have another one."""

    mb_per_s: float | None = None
    windows: tuple[Window, ...] = ()


def rate_at(transfer: Transfer | None, local: datetime) -> float | None:
    """The cap in bytes a second at a local time: None for none, 0 for a pause. The first window
    that it lies in counts."""
    if transfer is None:
        return None
    minute = local.hour * 60 + local.minute
    for window in transfer.windows:
        if _is_in(window, minute):
            own = window.mb_per_s
            return _bytes(transfer.mb_per_s if own is None else own)
    return _bytes(transfer.mb_per_s)


def _is_in(window: Window, minute: int) -> bool:
    begin, end = minutes(window.begin), minutes(window.end)
    if begin < end:
        return begin <= minute < end
    return minute >= begin or minute < end


def minutes(text: str) -> int:
    """Since midnight; `text` is "22:00"."""
    hours, _, rest = text.partition(":")
    return int(hours) * 60 + int(rest)


def _bytes(mb_per_s: float | None) -> float | None:
    return None if mb_per_s is None else mb_per_s * MB


def transfer_words(transfer: Transfer) -> str:
    """The cap as a person reads it."""
    words = [
        f"{window.begin} to {window.end} {_words(transfer, window)}" for window in transfer.windows
    ]
    rest = _cap(transfer.mb_per_s)
    return f"{', '.join(words)}, else {rest} (this machine's time)" if words else rest


def _words(transfer: Transfer, window: Window) -> str:
    return _cap(transfer.mb_per_s if window.mb_per_s is None else window.mb_per_s)


def _cap(mb_per_s: float | None) -> str:
    if mb_per_s is None:
        return "no cap"
    return f"at most {mb_per_s:g} MB/s" if mb_per_s else "paused"
