"""The cloud's own clock, because a test must see an hour's bill without waiting for an hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class CloudClock:
    """Real time, or driven: starts at an instant and moves only when it is told."""

    def __init__(self, start: datetime | None = None) -> None:
        self.driven = start is not None
        self._now = start or datetime.now(UTC)

    def now(self) -> datetime:
        return self._now if self.driven else datetime.now(UTC)

    def advance(self, seconds: float) -> datetime:
        """Move a driven clock. Raises ValueError when it is real, or told to go back."""
        if not self.driven:
            raise ValueError("this cloud runs on real time: start it with --driven ISO-TIME")
        if seconds < 0:
            raise ValueError("time goes forward only")
        self._now += timedelta(seconds=seconds)
        return self._now


def iso(at: datetime) -> str:
    """RFC 3339 with whole seconds, as both vendors write it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_iso(text: str) -> datetime:
    """An aware instant. Raises ValueError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} names no zone")
    return at.astimezone(UTC)
