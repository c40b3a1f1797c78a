"""A pod as the API tells it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from clouds.clock import iso
from clouds.runpod.pods import ACTIONS, ASSIGNED, Pod

PRIVATE_IP = "100.65.0.101"  # what an http port carries: nobody can reach it from outside


def pod_json(
    pod: Pod, now: datetime, *, skew_s: float = 0.0, clear: bool = False, stale: bool = False
) -> dict[str, Any]:
    """`clear` adds what RunPod injects to env; `stale` keeps an EXITED pod's last runtime."""
    status = pod.told_status or pod.status(now)
    port = pod.box.port if pod.box else 0
    alive = status == "RUNNING" or (stale and status == "EXITED")
    skew = timedelta(seconds=skew_s)
    started = status not in ("PROVISIONING", "STARTING") and now >= pod.running_at
    body = {
        "id": pod.id,
        "name": pod.name,
        "status": status,
        "actions": list(ACTIONS[status]),
        **pod.config,
        "env": {**pod.config["env"], **(pod.injected(port) if clear else {})},
        "cloud": pod.cloud,
        "dataCenterId": pod.center if _assigned(pod, now) else None,
        "cudaVersion": pod.cuda if _assigned(pod, now) and pod.gpu else None,
        "ssh": {
            "proxy": _proxy(pod) if _assigned(pod, now) else None,
            "direct": _direct(pod, now, port) if alive else None,
        },
        "template": None,
        "cost": pod.cost_usd(now),
        "locked": pod.locked,
        "globalNetworking": {"enabled": False},
        "runtime": _runtime(pod, now, port) if alive else None,
        "createdAt": iso(pod.created_at + skew),
        "startedAt": iso(pod.running_at + skew) if started else None,
    }
    return {**body, **_compute(pod)}


def has_endpoint(pod: Pod, now: datetime) -> bool:
    return (
        now >= pod.endpoint_at
        and not pod.no_endpoint
        and "22/tcp" in pod.config["ports"]
        and pod.box is not None
    )


def _compute(pod: Pod) -> dict[str, Any]:
    """After a start without a GPU there is no `gpu` at all."""
    if pod.cpu:
        flavor, count = pod.cpu
        return {"cpu": {"id": flavor, "vcpuCount": count, "memory": 2 * count}}
    if pod.gpu and pod.shown_gpus != 0:
        return {"gpu": {"id": pod.gpu[0], "count": pod.gpus()[1]}}
    return {}


def _assigned(pod: Pod, now: datetime) -> bool:
    if pod.stuck == "PROVISIONING":
        return False
    return pod.keeps_machine or now >= pod.boot_at + timedelta(seconds=ASSIGNED * pod.boot_s)


def _proxy(pod: Pod) -> dict[str, Any]:
    return _endpoint("ssh.runpod.io", 22, f"{pod.id}-64411eb2")


def _direct(pod: Pod, now: datetime, port: int) -> dict[str, Any] | None:
    return _endpoint("127.0.0.1", port, "root") if has_endpoint(pod, now) else None


def _endpoint(host: str, port: int, user: str) -> dict[str, Any]:
    command = f"ssh {user}@{host}" + ("" if port == 22 else f" -p {port}")
    return {"host": host, "port": port, "username": user, "command": command}


def _runtime(pod: Pod, now: datetime, port: int) -> dict[str, Any]:
    since = pod.container_at or pod.running_at
    public = has_endpoint(pod, now)
    ports = []
    for name in pod.config["ports"]:
        private, _, kind = name.partition("/")
        reached = kind == "tcp" and public and private == "22"
        ports.append(
            {
                "private": int(private),
                "public": port if reached else None,
                "type": kind,
                "ip": "127.0.0.1" if reached else PRIVATE_IP if kind == "http" else None,
            }
        )
    return {
        "uptime": max(0, int((now - since).total_seconds())),
        "gpus": [{"util": 0, "memoryUtil": 0}] * pod.gpus()[1],
        "cpu": {"util": 1},
        "memory": {"util": 2},
        "ports": ports,
    }
