"""Numbers as people read them."""

from __future__ import annotations

from datetime import datetime

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(size_bytes: float) -> str:
    """1234567 → 1.2 MB (decimal, as disks and links are sold)."""
    for unit in _UNITS:
        if size_bytes < 1000 or unit == _UNITS[-1]:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError("unreachable")


def dollars(amount_usd: float) -> str:
    return f"${amount_usd:.2f}"


def duration(seconds: float) -> str:
    """3725 → 1h02m05s."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"


def transfer_words(name: str, done: int, total: int, bytes_per_s: float | None) -> str:
    """checkpoint-20: 43%, 1.2 GB of 2.8 GB, 118.2 MB/s, 13s left."""
    share = min(1.0, done / total) if total else 1.0
    words = [f"{name}: {share:.0%}", f"{size(done)} of {size(total)}"]
    if bytes_per_s:
        words += [f"{size(bytes_per_s)}/s", f"{duration((total - done) / bytes_per_s)} left"]
    return ", ".join(words)


def clock(at: datetime) -> str:
    return at.astimezone().strftime("%H:%M:%S")
