"""Local boxes for tests: rented, reached by ssh, and ended whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.local import LocalProvider
from orchestrator.adapters.ssh import SshBoxes
from orchestrator.core.offer import Need, Offer
from orchestrator.ports import CreateRequest, Endpoint, ProviderInstance

RUN = "demo-1"
CPU = Need(gpus=(("cpu", 2),), disk_gb=1)
Rent = Callable[..., "Rented"]


@dataclass(frozen=True)
class Rented:
    """One box of one run, its host key pinned."""

    provider: LocalProvider
    boxes: SshBoxes
    provider_id: str
    endpoint: Endpoint

    @property
    def told(self) -> ProviderInstance:
        (found,) = [
            each for each in self.provider.list().instances if each.provider_id == self.provider_id
        ]
        return found

    @property
    def folder(self) -> Path:
        return self.provider._root / self.provider_id

    @property
    def pid(self) -> int:
        """The one process that all others of the box die with."""
        return int(self.told.restart_marker.split(":")[1])

    def sh(self, command: str, **options: object) -> str:
        shell = self.boxes.shell(self.endpoint, RUN)
        try:
            return shell.run(command, **options).stdout  # type: ignore[arg-type]
        finally:
            shell.close()


def provider_at(root: Path, **options: object) -> LocalProvider:
    return LocalProvider(root, clock=SystemClock(), **options)  # type: ignore[arg-type]


def offer_of(provider: LocalProvider) -> Offer:
    (offer,) = provider.offers(CPU)
    return offer


def rent(provider: LocalProvider, boxes: SshBoxes, instance: str = f"{RUN}-1") -> Rented:
    request = CreateRequest(
        instance=instance,
        mark=f"gpujob-{instance}",
        offer=offer_of(provider),
        public_key=boxes.public_key(),
        disk_gb=1,
    )
    provider_id = provider.create(request)
    (told,) = [each for each in provider.list().instances if each.provider_id == provider_id]
    assert told.host and told.port and told.user
    endpoint = Endpoint(instance, told.host, told.port, told.user)
    boxes.pin(instance, RUN, provider.host_keys(provider_id), told.host, told.port)
    return Rented(provider, boxes, provider_id, endpoint)


def end_all(provider: LocalProvider) -> None:
    for folder in list(provider._root.glob("local-*")):
        provider.terminate(folder.name)


def alive_with(text: str) -> list[int]:
    """Pids of living processes whose command line holds `text`."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if text in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["pid"])
    return found


def ssh_children() -> list[int]:
    children = psutil.Process().children(recursive=True)
    return [each.pid for each in children if _name(each) == "ssh"]


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Whether `condition` came true; for what another process does, which no clock moves."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def keygen(path: Path) -> str:
    """A new key at `path`; its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_name(path.name + ".pub").read_text().strip()
