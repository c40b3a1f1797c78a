"""What a request's body must be, and what is said when it is not (§1.3, §1.6). Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from clouds.cloud import Call
from clouds.thunder.catalogue import COUNTS, GPUS, SPECS, TEMPLATES, Spec
from clouds.thunder.replies import Refusal, invalid
from clouds.thunder.sshkeys import checked_key

# `mode` went in 2026 and is still sent by some: accepted, and means nothing.
CREATE = ("gpu_type", "num_gpus", "cpu_cores", "disk_size_gb", "template", "public_key", "mode")
NEEDED = ("gpu_type", "num_gpus", "cpu_cores", "disk_size_gb", "template")
MODIFY = ("gpu_type", "num_gpus", "cpu_cores", "disk_size_gb", "mode")
PORTS = ("add_ports", "remove_ports")
SSH_PORT = 22


@dataclass(frozen=True)
class Order:
    """A create, or a modify: what the instance is to be."""

    spec: Spec
    vcpus: int
    disk_gb: int
    template: str
    public_key: str | None = None


def body_of(call: Call, fields: Collection[str], *, needed: Collection[str] = ()) -> dict[str, Any]:
    """The body, with no field but these; nothing at all counts as {}. Raises Refusal."""
    body = {} if call.body is None else call.body
    if call.malformed or not isinstance(body, dict):
        raise Refusal(400, "The request is malformed")
    if strange := sorted(set(body) - set(fields)):
        raise Refusal(400, f"unknown field: {', '.join(strange)}")
    if missing := [name for name in needed if body.get(name) is None]:
        raise Refusal(400, f"missing field: {', '.join(missing)}")
    return dict(body)


def to_order(call: Call, snapshots: Mapping[str, int], *, grows: bool = False) -> Order:
    """`snapshots` are the minimum disks of those that may be restored, by name. With `grows` a disk
    that is too small for its snapshot silently becomes larger. Raises Refusal."""
    body = body_of(call, CREATE, needed=NEEDED)
    spec = _spec(body["gpu_type"], body["num_gpus"])
    vcpus = _vcpus(spec, body["cpu_cores"])
    least_gb = snapshots.get(str(body["template"]))
    if least_gb is None and body["template"] not in TEMPLATES:
        raise invalid(f"unknown template {body['template']!r}")
    disk_gb = body["disk_size_gb"]
    if grows and least_gb is not None and isinstance(disk_gb, int):
        disk_gb = max(disk_gb, least_gb)
    key = body.get("public_key")
    return Order(
        spec,
        vcpus,
        _disk(spec, disk_gb, least_gb=least_gb),
        str(body["template"]),
        checked_key(key) if key else None,
    )


def to_change(call: Call, now: Order) -> Order:
    """What a modify makes of `now`: its disk only grows. Raises Refusal."""
    body = body_of(call, MODIFY)
    asked = [name for name in MODIFY if name != "mode" and body.get(name) is not None]
    if not asked:
        raise Refusal(400, "nothing to modify")
    spec = _spec(body.get("gpu_type") or now.spec.gpu, body.get("num_gpus") or now.spec.count)
    vcpus = _vcpus(spec, body.get("cpu_cores") or now.vcpus)
    disk_gb = _disk(spec, body.get("disk_size_gb") or now.disk_gb, least_gb=now.disk_gb)
    return Order(spec, vcpus, disk_gb, now.template, now.public_key)


def to_ports(call: Call, open_now: Collection[int]) -> list[int]:
    """The ports that are open afterwards. Raises Refusal."""
    body = body_of(call, PORTS)
    lists = {name: body.get(name) or [] for name in PORTS}
    for name, ports in lists.items():
        if not isinstance(ports, list):
            raise invalid(f"{name} must be a list of ports")
        for port in ports:
            _check_port(port)
    return sorted((set(open_now) | set(lists["add_ports"])) - set(lists["remove_ports"]))


def vcpus_refused(spec: Spec, vcpus: Any) -> Refusal:
    options = " ".join(str(each) for each in spec.vcpus)
    return invalid(f"invalid vCPU count {vcpus}; valid options: [{options}]")


def _spec(gpu: Any, count: Any) -> Spec:
    """Upper case is fine: Thunder's own clients send it."""
    name = str(gpu).lower()
    if name not in GPUS:
        raise Refusal(400, f"invalid gpu_type {gpu!r}")
    if not _is_whole(count) or count not in COUNTS:
        raise invalid(f"invalid GPU count {count}; valid options: [1 2 4 8]")
    spec = SPECS.get(f"{name}_x{count}")
    if spec is None:
        options = " ".join(str(each.count) for each in SPECS.values() if each.gpu == name)
        raise invalid(f"invalid GPU count {count}; valid options: [{options}]")
    return spec


def _vcpus(spec: Spec, vcpus: Any) -> int:
    if not _is_whole(vcpus) or vcpus not in spec.vcpus:
        raise vcpus_refused(spec, vcpus)
    return int(vcpus)


def _disk(spec: Spec, disk_gb: Any, *, least_gb: int | None) -> int:
    """Between the spec's bounds; a snapshot's minimum may be above both."""
    low, high = spec.disk
    low = max(low, least_gb or 0)
    high = max(low, high)
    if not _is_whole(disk_gb) or not low <= disk_gb <= high:
        raise invalid(f"invalid disk size {disk_gb}; it must be from {low} to {high} GB")
    return int(disk_gb)


def _check_port(port: Any) -> None:
    if not _is_whole(port) or not 1 <= port <= 65535:
        raise invalid(f"invalid port {port}")
    if port == SSH_PORT:
        raise invalid("port 22 is reserved")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
