"""One pod, and what it is at any moment: its status is a function of time and of what was done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from clouds.boxes import Box

ACTIONS = {
    "RUNNING": ("stop", "restart", "terminate"),
    "EXITED": ("start", "terminate"),
    "ERROR": ("start", "terminate"),
    "PROVISIONING": ("stop", "terminate"),
    "STARTING": ("stop", "terminate"),
    "TERMINATED": (),
}
ASSIGNED = 0.3  # the part of a boot after which a machine is assigned


@dataclass(frozen=True)
class Line:
    at: datetime
    source: str
    text: str


@dataclass
class Pod:
    """`boot_at` is when the create, start or restart was accepted that it boots from now. The
    flags are what faults did to it."""

    id: str
    name: str
    config: dict[str, Any]  # image, args, disk, mounts, ports, env, registry
    gpu: tuple[str, int] | None
    cpu: tuple[str, int] | None
    cloud: str
    center: str
    cuda: str
    usd_per_hour: float
    created_at: datetime
    key: str
    keys: list[str]
    boot_s: float
    endpoint_s: float
    sshd_s: float
    boot_at: datetime
    keeps_machine: bool = False
    locked: bool = False
    halted: str = ""
    ended_at: datetime | None = None
    stuck: str = ""
    oci_loop: bool = False
    no_endpoint: bool = False
    refuses: bool = False
    shown_gpus: int | None = None
    hidden_until: datetime | None = None
    told_until: datetime | None = None
    told_status: str = ""
    outbid_at: datetime | None = None
    container_at: datetime | None = None
    announced: bool = False
    opened: bool = False
    log: list[Line] = field(default_factory=list)
    struck: set[int] = field(default_factory=set)
    box: Box | None = None
    work: asyncio.Task[None] | None = None

    @property
    def running_at(self) -> datetime:
        """When it is RUNNING if nothing holds it up."""
        return self.boot_at + timedelta(seconds=self.boot_s)

    @property
    def endpoint_at(self) -> datetime:
        return self.running_at + timedelta(seconds=self.endpoint_s)

    @property
    def sshd_at(self) -> datetime:
        return self.endpoint_at + timedelta(seconds=self.sshd_s)

    def status(self, now: datetime) -> str:
        if self.ended_at is not None:
            return "TERMINATED"
        if self.halted:
            return self.halted
        assigned_at = self.boot_at + timedelta(seconds=ASSIGNED * self.boot_s)
        if self.stuck == "PROVISIONING" or (now < assigned_at and not self.keeps_machine):
            return "PROVISIONING"
        return "STARTING" if self.stuck or now < self.running_at else "RUNNING"

    def cost_usd(self, now: datetime) -> float:
        """Per hour, as its status bills: ERROR does, since only EXITED and TERMINATED are free."""
        return 0.0 if self.status(now) in ("EXITED", "TERMINATED") else self.usd_per_hour

    def running_s(self, now: datetime) -> float:
        return (now - self.running_at).total_seconds()

    @property
    def volume(self) -> str | None:
        """The network volume it mounts."""
        mounts = self.config["mounts"].get("network") or [{}]
        return mounts[0].get("volumeId")

    @property
    def serves_ssh(self) -> bool:
        """A custom start command replaces the script that starts sshd, unless it does so itself;
        without a public key that script does not start it either."""
        args = self.config["args"]
        return bool(self.keys) and (not args or "ssh" in args)

    def gpus(self) -> tuple[str, int]:
        """What nvidia-smi shows."""
        model, count = self.gpu or ("", 0)
        return model, count if self.shown_gpus is None else self.shown_gpus

    def injected(self, port: int) -> dict[str, str]:
        """What RunPod adds to the container's environment."""
        return {
            "RUNPOD_POD_ID": self.id,
            "RUNPOD_API_KEY": self.key,
            "RUNPOD_DC_ID": self.center,
            "RUNPOD_POD_HOSTNAME": f"{self.id}-64411eb2",
            "RUNPOD_GPU_COUNT": str(self.gpus()[1]),
            "RUNPOD_PUBLIC_IP": "127.0.0.1",
            "RUNPOD_TCP_PORT_22": str(port),
            **({"RUNPOD_VOLUME_ID": self.volume} if self.volume else {}),
        }

    def say(self, at: datetime, source: str, *texts: str) -> None:
        self.log += [Line(at, source, text) for text in texts]

    def boot_again(self, now: datetime, boot_s: float) -> None:
        """From a stop, a crash or a restart, on the same machine."""
        self.boot_at, self.boot_s, self.keeps_machine = now, boot_s, True
        self.halted = self.stuck = ""
        self.announced = self.opened = self.refuses = self.no_endpoint = self.oci_loop = False
        self.container_at = None
