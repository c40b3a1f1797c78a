"""One instance of the emulated Thunder Compute: its life as a function of time, and how a list
tells it (§1.4, §1.5). Pure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from clouds.boxes import Box
from clouds.clock import iso
from clouds.thunder.sshkeys import mark_of
from clouds.thunder.validate import Order

HOST = "127.0.0.1"
WORDS = ("PENDING", *("STARTING",) * 9)
RESTORING = ("PENDING", *("RESTORING",) * 9)
LINGER_S = 0.2  # DELETING for this long at least


@dataclass(frozen=True)
class Boot:
    """Seconds from the create to RUNNING, from there to the address, from there to the open port.
    `words` share the time until RUNNING evenly; `ends` is False when RUNNING never comes."""

    running_s: float
    endpoint_s: float
    sshd_s: float
    words: tuple[str, ...] = WORDS
    unknown_s: float = 0.0
    ends: bool = True
    tells_address: bool = True

    @property
    def open_s(self) -> float:
        return self.running_s + self.endpoint_s + self.sshd_s

    def word(self, age_s: float) -> str:
        if age_s < self.unknown_s:
            return "UNKNOWN"
        if self.ends and age_s >= self.running_s:
            return "RUNNING"
        share = age_s / self.running_s if self.running_s else 1.0
        return self.words[min(int(share * len(self.words)), len(self.words) - 1)]


@dataclass(frozen=True)
class Spell:
    """A status that lasts from `since` until `until`."""

    word: str
    since: datetime
    until: datetime

    def covers(self, now: datetime) -> bool:
        return self.since <= now < self.until


@dataclass
class Instance:
    """`stale` is what the list still says, and until when; `opens_at` when its closed port opens
    again; `pending` are keys with the moment from which they let in."""

    uuid: str
    index: int
    order: Order
    keys: list[str]
    created_at: datetime
    boot: Boot
    price_factor: float = 1.0
    box: Box | None = None
    host_key: str = ""
    work: asyncio.Task[None] | None = None
    spells: list[Spell] = field(default_factory=list)
    halted: bool = False
    deleting_at: datetime | None = None
    gone_at: datetime | None = None
    hidden_until: datetime | None = None
    restored_from: str = ""
    restart: dict[str, Any] | None = None
    stale: tuple[datetime, dict[str, Any]] | None = None
    old_port: int = 0
    ports: list[int] = field(default_factory=list)
    pending: list[tuple[datetime, str]] = field(default_factory=list)
    opens_at: datetime = field(init=False)
    opened_at: datetime | None = None
    open: bool = False
    dead: bool = False
    befallen_at: datetime | None = None

    def __post_init__(self) -> None:
        self.opens_at = self.created_at + timedelta(seconds=self.boot.open_s)

    @property
    def usd_per_hour(self) -> float:
        order = self.order
        return order.spec.price(order.vcpus, order.disk_gb, self.price_factor)

    @property
    def mark(self) -> str:
        return mark_of(self.keys)

    @property
    def facts(self) -> dict[str, Any]:
        return {"instance": self.uuid, "mark": self.mark}

    def age_s(self, now: datetime) -> float:
        return (now - self.created_at).total_seconds()

    def running_s(self, now: datetime) -> float:
        """How long it runs; negative before."""
        return self.age_s(now) - self.boot.running_s if self.boot.ends else -1.0

    def calm_s(self, now: datetime) -> float:
        """Since it could be reached, or since the last thing that befell it; negative before."""
        if self.opened_at is None:
            return -1.0
        return (now - max(self.opened_at, self.befallen_at or self.opened_at)).total_seconds()

    def status(self, now: datetime) -> str:
        if self.deleting_at:
            return "DELETING"
        for spell in reversed(self.spells):
            if spell.covers(now):
                return spell.word
        return "STOPPED" if self.halted else self.boot.word(self.age_s(now))

    def spell(self, word: str, now: datetime, for_s: float) -> None:
        self.spells.append(Spell(word, now, now + timedelta(seconds=for_s)))

    def has_address(self, now: datetime) -> bool:
        boot = self.boot
        told_s = boot.running_s + boot.endpoint_s
        return boot.ends and boot.tells_address and self.age_s(now) >= told_s

    def to_json(self, now: datetime) -> dict[str, Any]:
        """A list item: numbers as text; ip null and port 0 until there is an address."""
        there = self.has_address(now) and self.box is not None
        told = {
            "uuid": self.uuid,
            "name": self.uuid,
            "status": self.status(now),
            "ip": HOST if there else None,
            "port": self.box.port if there and self.box else 0,
            **self._size(),
            "template": self.order.template,
            "httpPorts": list(self.ports),
            "sshPublicKeys": list(self.keys),
            "createdAt": iso(self.created_at),
            "k8s": True,
            "promoted": False,
            "provisioningTime": iso(self.created_at),
            "restoringTime": iso(self.created_at) if self.restored_from else "",
            "snapshotSize": 0,
        }
        if self.restart:
            told["lastRestart"] = self.restart
        if self.stale and now < self.stale[0]:
            told |= self.stale[1]
        return told

    def become(self, order: Order, now: datetime, *, stale_s: float, takes_s: float) -> None:
        """A modify: first the list knows nothing of it, then MODIFYING, then RUNNING."""
        changes_at = now + timedelta(seconds=stale_s)
        if stale_s:
            self.stale = (changes_at, self._size())
        self.order = order
        self.spell("MODIFYING", changes_at, takes_s)
        self.opens_at = changes_at + timedelta(seconds=takes_s)

    def _size(self) -> dict[str, Any]:
        spec, vcpus = self.order.spec, self.order.vcpus
        return {
            "cpuCores": str(vcpus),
            "numGpus": str(spec.count),
            "memory": str(spec.ram_gb(vcpus)),
            "storage": self.order.disk_gb,
            "gpuType": spec.gpu,
            "mode": spec.mode,
        }


def free_index(living: list[Instance]) -> int:
    """The smallest that is free: an index is used again."""
    used = {each.index for each in living}
    return next(index for index in range(len(used) + 1) if index not in used)


def renumber(living: list[Instance]) -> None:
    """Every index moves on by one place, and one place more than there are instances exists: what
    an index led to yesterday is another instance today, or none."""
    places = max([len(living), *(each.index for each in living)], default=0) + 1
    for each in living:
        each.index = (each.index + 1) % places
