"""One instance of the emulated Thunder Compute: its life as a function of time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clouds.boxes import Box
from clouds.clock import iso
from clouds.thunder.catalogue import SPECS, Spec

MARK = "gpujob-"


@dataclass
class Life:
    """The delays of one boot, in seconds after the create; None is never."""

    running_s: float | None
    address_s: float | None
    open_s: float | None
    unlock_s: float = 0.0
    unknown_s: float = 0.0


@dataclass
class Instance:
    """`shown` is what the list still says after a modify; `deleting_at` when a delete was asked."""

    uuid: str
    index: int
    spec: str
    vcpus: int
    disk_gb: int
    template: str
    keys: list[str]
    created_at: datetime
    life: Life
    box: Box
    status_word: str = ""
    deleting_at: datetime | None = None
    gone_at: datetime | None = None
    restart: dict[str, Any] | None = None
    opened: bool = False
    unlocked: bool = False
    migrating_until: datetime | None = None
    modified_at: datetime | None = None
    shown: dict[str, Any] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    @property
    def plan(self) -> Spec:
        return SPECS[self.spec]

    @property
    def usd_per_hour(self) -> float:
        return self.plan.price(self.vcpus, self.disk_gb)

    @property
    def mark(self) -> str:
        words = [word for key in self.keys for word in key.split()[2:3]]
        return next((word for word in words if word.startswith(MARK)), "")

    def age_s(self, now: datetime) -> float:
        return (now - self.created_at).total_seconds()

    def running_s(self, now: datetime) -> float:
        """How long it runs; negative before."""
        running_s = self.life.running_s
        return -1.0 if running_s is None else self.age_s(now) - running_s

    def status(self, now: datetime) -> str:
        if self.deleting_at:
            return "DELETING"
        if self.status_word:
            return self.status_word
        if self.age_s(now) < self.life.unknown_s:
            return "UNKNOWN"
        if self.running_s(now) < 0:
            return "PENDING" if self.age_s(now) < 0.1 else "STARTING"
        return "MIGRATING" if self.migrating_until and now < self.migrating_until else "RUNNING"

    def has_address(self, now: datetime) -> bool:
        address_s = self.life.address_s
        return address_s is not None and self.age_s(now) >= address_s

    def to_json(self, now: datetime) -> dict[str, Any]:
        """A list item: numbers as text, and null until there is an address."""
        told = {
            "uuid": self.uuid,
            "name": self.uuid,
            "status": self.status(now),
            "cpuCores": str(self.vcpus),
            "numGpus": str(self.plan.count),
            "memory": str(self.plan.ram_gb(self.vcpus)),
            "storage": self.disk_gb,
            "gpuType": self.plan.gpu,
            "template": self.template,
            "mode": "production" if self.plan.count >= 4 else "prototyping",
            "httpPorts": [],
            "sshPublicKeys": list(self.keys),
            "createdAt": iso(self.created_at),
            "k8s": True,
            "promoted": False,
            **self.shown,
        }
        if self.has_address(now):
            told |= {"ip": "127.0.0.1", "port": self.box.port}
        if self.restart:
            told["lastRestart"] = self.restart
        return told
