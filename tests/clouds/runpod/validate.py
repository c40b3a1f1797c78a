"""What a request body must look like before anybody reads it: the 422s, with all their errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[str, Any], list[str]]


def text(least: int = 0, pattern: str = "", *, null: bool = False) -> Check:
    def check(where: str, value: Any) -> list[str]:
        if value is None and null:
            return []
        if not isinstance(value, str):
            return [f"{where}: got {_kind(value)}, want string"]
        if len(value) < least:
            return [f"{where}: length must be >= {least}, but got {len(value)}"]
        if pattern and not re.fullmatch(pattern, value):
            return [f"{where}: '{value}' does not match pattern '^{pattern}$'"]
        return []

    return check


def integer(least: int, most: int | None = None) -> Check:
    def check(where: str, value: Any) -> list[str]:
        if isinstance(value, bool) or not isinstance(value, int):
            return [f"{where}: got {_kind(value)}, want integer"]
        if value < least:
            return [f"{where}: minimum: got {value}, want {least}"]
        if most is not None and value > most:
            return [f"{where}: maximum: got {value}, want {most}"]
        return []

    return check


def flag(where: str, value: Any) -> list[str]:
    return [] if isinstance(value, bool) else [f"{where}: got {_kind(value)}, want boolean"]


def choice(*values: str) -> Check:
    def check(where: str, value: Any) -> list[str]:
        if value in values:
            return []
        return [f"{where}: value must be one of {', '.join(map(repr, values))}"]

    return check


def each(item: Check, most: int | None = None) -> Check:
    def check(where: str, value: Any) -> list[str]:
        if not isinstance(value, list):
            return [f"{where}: got {_kind(value)}, want array"]
        if most is not None and len(value) > most:
            return [f"{where}: maxItems: got {len(value)}, want {most}"]
        return [e for n, one in enumerate(value) for e in item(f"{where}[{n}]", one)]

    return check


def shape(fields: Mapping[str, Check], *required: str) -> Check:
    """An object with these fields and no others."""

    def check(where: str, value: Any) -> list[str]:
        if not isinstance(value, dict):
            return [f"{where}: got {_kind(value)}, want object"]
        errors = [f"{where}: missing property '{name}'" for name in required if name not in value]
        for name, one in value.items():
            if name not in fields:
                errors.append(f"{where}: additional properties '{name}' not allowed")
            else:
                errors += fields[name](f"{where}.{name}", one)
        return errors

    return check


def mapping(where: str, value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: got {_kind(value)}, want object"]
    return [error for name, one in value.items() for error in text()(f"{where}.{name}", one)]


CUDA = text(pattern=r"\d+\.\d+")
PERSISTENT = shape({"size": integer(10), "path": text()}, "size", "path")
NETWORK = each(shape({"volumeId": text(), "path": text()}, "volumeId", "path"), 1)
MOUNTS = shape({"persistent": PERSISTENT, "network": NETWORK})
CONTAINER: dict[str, Check] = {
    "image": text(),
    "args": text(),
    "disk": integer(1),
    "env": mapping,
    "ports": each(text()),
    "registry": text(null=True),
    "entrypoint": each(text()),  # this and cmd came after the saved document (§1.1)
    "cmd": each(text()),
}
GPU = shape(
    {
        "id": text(),
        "count": integer(1),
        "allowedCudaVersions": each(CUDA),
        "minCudaVersion": CUDA,
        "minRamPerGpu": integer(1),  # this and the next: likewise
        "minVcpuCountPerGpu": integer(1),
    },
    "id",
)
POD: dict[str, Check] = {
    **CONTAINER,
    "name": text(1),
    "mounts": MOUNTS,
    "globalNetworking": flag,
    "templateId": text(1),
}
CREATE = shape(
    {
        **POD,
        "cloud": choice("SECURE", "COMMUNITY"),
        "cpu": shape({"id": text(1), "vcpuCount": integer(2)}, "id", "vcpuCount"),
        "dataCenterIds": each(text()),
        "gpu": GPU,
        "startJupyter": flag,
        "startSsh": flag,
    },
    "name",
)
UPDATE = shape({**POD, "locked": flag})
ACTION = shape({"action": choice("start", "stop", "restart", "terminate")}, "action")
KEYS = shape({"keys": each(text(pattern=r"(ssh|ecdsa|sk)-[^\s]+ [^\s]+([ \t][^\n\r]*)?"))}, "keys")
VOLUME = shape(
    {
        "name": text(1),
        "size": integer(10, 4096),
        "dataCenter": text(1),
        "type": choice("STANDARD", "HIGH_PERFORMANCE"),
    },
    "name",
    "size",
    "dataCenter",
)
VOLUME_UPDATE = shape({"name": text(1), "size": integer(10, 4096)})
TEMPLATE: dict[str, Check] = {
    **CONTAINER,
    "name": text(1),
    "allowedCudaVersions": each(CUDA),
    "category": choice("CPU", "NVIDIA", "AMD"),
    "mounts": shape({"persistent": PERSISTENT}),
    "public": flag,
    "serverless": flag,
    "startJupyter": flag,
    "startSsh": flag,
}
TEMPLATE_CREATE = shape(TEMPLATE, "name", "image")
TEMPLATE_UPDATE = shape(TEMPLATE)


def errors_of_create(body: Any) -> list[str]:
    errors = CREATE("$", body)
    if isinstance(body, dict) and "templateId" not in body and "image" not in body:
        errors.append("$: missing property 'image'")
    return errors


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
