"""Clients of the emulated Thunder Compute, as its tests use it: of the API, and of its boxes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kit.boxes import until
from kit.cloud import Cloud

START = "2026-11-20T10:00:00+00:00"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== gpujob-a"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB== someone@laptop"
BOOTED_S = 2.0
PATIENCE_S = 30.0  # with a machine that has other things to do
PLAIN = (
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "IdentitiesOnly=yes",
    "BatchMode=yes",
)
Api = httpx.Client
Done = subprocess.CompletedProcess[str]


def as_new(cloud: Cloud) -> Cloud:
    """No fault, no instance, no snapshot, no key."""
    cloud.disarm()
    for each in cloud.instances():
        cloud.end(each["id"])
    with client(cloud) as api:
        for kind in ("snapshots", "keys"):
            for each in api.get(f"/v1/{kind}/list").json():
                api.delete(f"/v1/{kind}/{each['id']}")
    return cloud


def client(cloud: Cloud, **headers: str) -> Api:
    told = {"Authorization": f"Bearer {cloud.key}", "User-Agent": "test/1", **headers}
    return httpx.Client(base_url=cloud.url, headers=told, timeout=20.0)


def order(**changes: Any) -> dict[str, Any]:
    body = {
        "gpu_type": "a6000",
        "num_gpus": 1,
        "cpu_cores": 6,
        "disk_size_gb": 100,
        "template": "base",
        "public_key": KEY,
    }
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def create(api: Api, **changes: Any) -> dict[str, Any]:
    reply = api.post("/v1/instances/create", json=order(**changes))
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def running(cloud: Cloud, api: Api, **changes: Any) -> str:
    made = create(api, **changes)
    cloud.advance(2)
    assert item(api, made["uuid"])["status"] == "RUNNING"
    return str(made["uuid"])


def ordered(api: Api, **changes: Any) -> httpx.Response:
    return api.post("/v1/instances/create", json=order(**changes))


def snapshot(api: Api, uuid: str, name: str) -> httpx.Response:
    return api.post("/v1/snapshots/create", json={"instanceId": uuid, "name": name})


def listed(api: Api, **query: str) -> dict[str, Any]:
    reply = api.get("/v1/instances/list", params=query)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def item(api: Api, uuid: str, **query: str) -> dict[str, Any]:
    return next(each for each in listed(api, **query).values() if each["uuid"] == uuid)


def act(api: Api, name: str, what: str, body: Any = None) -> httpx.Response:
    return api.post(f"/v1/instances/{name}/{what}", json=body)


def billed(cloud: Cloud, uuid: str) -> float:
    return sum(each["usd"] for each in cloud.bill()["intervals"] if each["instance"] == uuid)


@dataclass
class Renter:
    """A client with one ssh key."""

    cloud: Cloud
    api: Api
    key: Path
    public: str

    def rent(self, **changes: Any) -> str:
        return str(create(self.api, **{"public_key": self.public, **changes})["uuid"])

    def ready(self, **changes: Any) -> str:
        uuid = self.rent(**changes)
        self.cloud.advance(BOOTED_S)
        self.reachable(uuid)
        return uuid

    def reachable(self, uuid: str) -> None:
        said: list[Done] = []

        def answers() -> bool:
            said.append(self.ssh(uuid, "true"))
            return said[-1].returncode == 0

        assert until(answers, PATIENCE_S), said[-1].stderr

    def out(self, uuid: str, command: str) -> str:
        done = self.ssh(uuid, command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ssh(
        self, uuid: str, command: str, *, key: Path | None = None, patience_s: int = 10
    ) -> Done:
        words = [*self.words(uuid, key=key, patience_s=patience_s), command]
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)

    def words(self, uuid: str, *, key: Path | None = None, patience_s: int = 10) -> list[str]:
        port = item(self.api, uuid)["port"] or 1  # nobody listens on 1
        words = ["ssh", "-F", "none", "-i", str(key or self.key), "-p", str(port)]
        for option in (*PLAIN, f"ConnectTimeout={patience_s}"):
            words += ["-o", option]
        return [*words, "ubuntu@127.0.0.1"]

    def befall(self, uuid: str, fault: str, **params: Any) -> None:
        self.cloud.fault(fault, instance=uuid, after_s=0.0, **params)

    def pids(self) -> set[int]:
        return {each.pid for each in self.cloud.processes()}

    def truth(self, uuid: str) -> dict[str, Any]:
        return next(each for each in self.cloud.instances() if each["id"] == uuid)

    def starts_something(self, uuid: str) -> None:
        """Something that is on the disk, and something that runs."""
        self.out(uuid, "echo kept > file; setsid sleep 4711 > /dev/null 2>&1 < /dev/null &")
        assert self.runs(uuid)

    def runs(self, uuid: str) -> bool:
        return self.ssh(uuid, "pgrep -f 'sleep [4]711'").returncode == 0
