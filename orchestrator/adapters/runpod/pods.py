"""A pod as RunPod tells it, and the body that asks for one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.adapters.replies import amount_of, host_of, port_of, shorten, time_of
from orchestrator.core.offer import BootPhase
from orchestrator.ports import CreateRequest, InstanceState, ProviderInstance

DEFAULT_IMAGE = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"
MARK = "gpujob-"

# RunPod's words (reference/runpod.md §1.3). A stopped pod keeps neither its GPU nor its container
# disk, so it is of no use; one that is TERMINATED is as good as not listed.
STATES: Mapping[str, tuple[InstanceState, BootPhase]] = {
    "PROVISIONING": ("PENDING", "assigning"),
    "STARTING": ("PENDING", "starting"),
    "RUNNING": ("RUNNING", "ready"),
    "EXITED": ("BROKEN", "ready"),
    "ERROR": ("BROKEN", "ready"),
}
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def to_body(request: CreateRequest) -> dict[str, Any]:
    """The body of `POST /v2/pods`. The count, the disk and the ssh port are always named: without
    them a pod is refused, or comes up where nobody can reach it (reference/runpod.md §1.2)."""
    offer, rental = request.offer, request.rental
    gpu: dict[str, Any] = {"id": offer.details["gpu"], "count": offer.count}
    if rental.min_cuda:
        gpu["minCudaVersion"] = rental.min_cuda
    body: dict[str, Any] = {
        "name": request.mark,
        "image": DEFAULT_IMAGE if rental.image == "auto" else rental.image,
        "gpu": gpu,
        "cloud": offer.details["cloud"],
        "disk": request.disk_gb,
        "ports": ["22/tcp", *(f"{port}/http" for port in rental.ports if port != 22)],
        # Exactly this key, and nothing of the account's: `startSsh` would add all of its keys.
        "env": {"PUBLIC_KEY": request.public_key.strip(), "GPUJOB_MARK": request.mark},
    }
    if offer.region:
        body["dataCenterIds"] = [offer.region]
    if rental.volume:
        mount = {"volumeId": rental.volume, "path": rental.volume_path}
        body["mounts"] = {"network": [mount]}
    return body


def mark_of(pod: Mapping[str, Any]) -> str:
    """Our mark, from the environment of its birth or its name; empty for a pod of others."""
    env = pod.get("env")
    told = env.get("GPUJOB_MARK") if isinstance(env, dict) else None
    for text in (told, pod.get("name")):
        if isinstance(text, str) and text.startswith(MARK):
            return text
    return ""


def to_instance(pod: Mapping[str, Any]) -> ProviderInstance | None:
    """One of ours as the port tells it; None for a pod of others."""
    mark, word = mark_of(pod), shorten(str(pod.get("status", ""))).upper()
    if not mark or word == "TERMINATED":
        return None
    state, phase = STATES.get(word, ("PENDING", "assigning"))
    host, port, user = _address(pod)
    if state == "RUNNING" and host is None:
        state, phase = "PENDING", "endpoint"
    return ProviderInstance(
        provider_id=str(pod["id"]),
        mark=mark,
        state=state,
        created_at=time_of(pod.get("createdAt")),
        usd_per_hour=amount_of(pod.get("cost")),
        host=host,
        port=port,
        user=user,
        # The ports change with a restart too, and also without one.
        restart_marker=str(pod.get("startedAt") or ""),
        detail=word,
        phase=phase,
    )


def _address(pod: Mapping[str, Any]) -> tuple[str | None, int | None, str | None]:
    """Only the direct endpoint: the proxy gives a shell and carries no files."""
    ssh = pod.get("ssh")
    direct = ssh.get("direct") if isinstance(ssh, dict) else None
    if not isinstance(direct, dict):
        return None, None, None
    host, port = host_of(direct.get("host")), port_of(direct.get("port"))
    user = str(direct.get("username") or "root")
    if host is None or port is None or not _USER.fullmatch(user):
        return None, None, None
    return host, port, user
