"""The account: what it owes to the cent, how often it may ask, and what it asked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from clouds.clock import CloudClock


@dataclass(frozen=True)
class Interval:
    """One instance at one price; `until` is None while it goes on."""

    instance: str
    mark: str
    usd_per_hour: float
    since: datetime
    until: datetime | None = None

    def usd(self, now: datetime, unit_s: float) -> float:
        """What it costs until `now`, every begun unit paid in full."""
        lasted_s = ((self.until or now) - self.since).total_seconds()
        return math.ceil(round(max(0.0, lasted_s) / unit_s, 6)) * unit_s * self.usd_per_hour / 3600


@dataclass(frozen=True)
class Window:
    """At most `quota` requests in `length_s`; `left` and `reset_s` as of the last request."""

    name: str
    quota: int
    length_s: int
    left: int = 0
    reset_s: int = 0


@dataclass(frozen=True)
class Asked:
    """One request as the audit keeps it: no secret of it."""

    at: datetime
    method: str
    path: str
    status: int
    who: str
    body: Any = None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "at": self.at.isoformat()}


@dataclass
class Account:
    """`unit_s` is what the vendor rounds up to: 1 s, or a minute."""

    clock: CloudClock
    key: str
    deposit_usd: float
    unit_s: float = 1.0
    windows: tuple[Window, ...] = ()
    log: list[Interval] = field(default_factory=list)
    audit: list[Asked] = field(default_factory=list)
    _counted: dict[str, tuple[datetime, int]] = field(default_factory=dict)

    def bill(self, instance: str, mark: str, usd_per_hour: float, at: datetime) -> None:
        """From `at` on the instance costs this much; 0 closes its interval."""
        running = self._running(instance)
        if running is not None:
            if running.usd_per_hour == usd_per_hour:
                return
            self.log[self.log.index(running)] = replace(running, until=max(at, running.since))
        if usd_per_hour > 0:
            self.log.append(Interval(instance, mark, usd_per_hour, at))

    def spent_usd(self, now: datetime | None = None) -> float:
        return sum(each.usd(now or self.clock.now(), self.unit_s) for each in self.log)

    @property
    def balance_usd(self) -> float:
        return self.deposit_usd - self.spent_usd()

    @property
    def spend_usd_per_hour(self) -> float:
        return sum(each.usd_per_hour for each in self.log if each.until is None)

    def set_balance(self, usd: float) -> None:
        """What is left is `usd` as of now."""
        self.deposit_usd = usd + self.spent_usd()

    def statement(self) -> dict[str, Any]:
        """The billing log with its sums, as /_control/bill shows it."""
        now = self.clock.now()
        rows = [
            {
                "instance": each.instance,
                "mark": each.mark,
                "usd_per_hour": each.usd_per_hour,
                "from": each.since.isoformat(),
                "to": each.until.isoformat() if each.until else None,
                "usd": round(each.usd(now, self.unit_s), 6),
            }
            for each in self.log
        ]
        return {
            "at": now.isoformat(),
            "unit_s": self.unit_s,
            "intervals": rows,
            "total_usd": round(self.spent_usd(now), 6),
            "usd_per_hour": self.spend_usd_per_hour,
            "running": [row["instance"] for row in rows if row["to"] is None],
            "balance_usd": round(self.balance_usd, 6),
        }

    def ask(self) -> tuple[tuple[Window, ...], Window | None]:
        """Count one request: every window as it is now, and the one that refuses it. When several
        do it is the shortest: its end does not promise that the next request is let in."""
        now = self.clock.now()
        counted = tuple(self._count(window, now) for window in self.windows)
        full = [each for each in counted if each.left < 0]
        told = tuple(replace(each, left=max(0, each.left)) for each in counted)
        return told, full[0] if full else None

    def exhaust(self, name: str) -> None:
        """Use up a window, as another client of the account would."""
        window = next(each for each in self.windows if each.name == name)
        self._counted[name] = (self._started(window, self.clock.now()), window.quota)

    def note(self, asked: Asked) -> None:
        self.audit.append(asked)

    def _running(self, instance: str) -> Interval | None:
        found = (each for each in self.log if each.instance == instance and each.until is None)
        return next(found, None)

    def _count(self, window: Window, now: datetime) -> Window:
        started = self._started(window, now)
        last, used = self._counted.get(window.name, (started, 0))
        used = used + 1 if last == started else 1
        self._counted[window.name] = (started, min(used, window.quota))
        ends = started + timedelta(seconds=window.length_s)
        reset_s = math.ceil((ends - now).total_seconds())
        return replace(window, left=window.quota - used, reset_s=max(1, reset_s))

    def _started(self, window: Window, now: datetime) -> datetime:
        """A window runs from the first request after the last one ended."""
        last, _ = self._counted.get(window.name, (now, 0))
        return last if now < last + timedelta(seconds=window.length_s) else now


def windows(per_minute: int | None) -> tuple[Window, ...]:
    """The one window of an account with a plain limit; none when there is no limit."""
    return () if per_minute is None else (Window("minute", per_minute, 60),)
