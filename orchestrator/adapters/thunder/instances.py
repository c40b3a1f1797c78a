"""An instance as Thunder Compute tells it, and the body that asks for one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.replies import host_of, port_of, shorten, time_of
from orchestrator.adapters.thunder.catalogue import Prices, Spec
from orchestrator.core.offer import BootPhase
from orchestrator.ports import CreateRequest, InstanceState, ProviderInstance

DEFAULT_TEMPLATE = "base"
MARK = "gpujob-"
_INDEX = re.compile(r"[A-Za-z0-9_-]{1,64}")

# Thunder's words (reference/thunder.md §1.5). UNKNOWN is said in passing, also early in a boot;
# STOPPED has no way back, for there is no start.
STATES: Mapping[str, tuple[InstanceState, BootPhase]] = {
    "PENDING": ("PENDING", "assigning"),
    "QUEUED": ("PENDING", "assigning"),
    "STAGING": ("PENDING", "assigning"),
    "PROVISIONING": ("PENDING", "starting"),
    "CREATING": ("PENDING", "starting"),
    "STARTING": ("PENDING", "starting"),
    "RESTORING": ("PENDING", "starting"),
    "SNAPPING": ("PENDING", "starting"),
    "MODIFYING": ("PENDING", "starting"),
    "MIGRATING": ("PENDING", "starting"),
    "UNKNOWN": ("PENDING", "starting"),
    "RUNNING": ("RUNNING", "ready"),
    "STOPPING": ("BROKEN", "ready"),
    "STOPPED": ("BROKEN", "ready"),
    "DELETING": ("BROKEN", "ready"),
}


@dataclass(frozen=True)
class Item:
    """One line of the list: `index` is its place now, which moves; `uuid` is what it is."""

    index: str
    uuid: str
    data: Mapping[str, Any]


def to_body(request: CreateRequest) -> dict[str, Any]:
    """The body of `/v1/instances/create`. There is no name: the key's comment is the mark."""
    offer, rental = request.offer, request.rental
    return {
        "gpu_type": offer.details["gpu_type"],
        "num_gpus": offer.count,
        "cpu_cores": offer.vcpus,
        "disk_size_gb": offer.disk_gb,
        "template": DEFAULT_TEMPLATE if rental.image == "auto" else rental.image,
        "public_key": key_line(request.public_key, request.mark),
    }


def key_line(public_key: str, mark: str) -> str:
    """One line, without the newline that Thunder refuses."""
    kind, encoded = public_key.split()[:2]
    return f"{kind} {encoded} {mark}"


def items(data: Any) -> Iterator[Item]:
    """The list is an object by index. Raises ValueError for anything else, and for an entry that
    has no identity: what is not listed counts as gone."""
    if not isinstance(data, dict):
        raise ValueError("no object")
    for index, entry in data.items():
        uuid = entry.get("uuid") if isinstance(entry, dict) else None
        if not isinstance(uuid, str) or not uuid or not _INDEX.fullmatch(index):
            raise ValueError("an entry without an identity")
        yield Item(index, uuid, entry)


def mark_of(item: Item) -> str:
    keys = item.data.get("sshPublicKeys")
    for key in keys if isinstance(keys, list) else ():
        words = str(key).split()
        if len(words) >= 3 and words[2].startswith(MARK):
            return words[2]
    return ""


def to_instance(
    item: Item, specs: Mapping[str, Spec], prices: Prices | None, user: str
) -> ProviderInstance | None:
    """One of ours as the port tells it; None for an instance of others."""
    mark = mark_of(item)
    if not mark:
        return None
    word = shorten(str(item.data.get("status", ""))).upper()
    state, phase = STATES.get(word, ("PENDING", "starting"))
    host, port = host_of(item.data.get("ip")), _port(item.data.get("port"))
    if state == "RUNNING" and (host is None or port is None):
        state, phase = "PENDING", "endpoint"
    return ProviderInstance(
        provider_id=item.uuid,
        mark=mark,
        state=state,
        created_at=time_of(item.data.get("createdAt")),
        usd_per_hour=_price(item, specs, prices),
        host=host,
        port=port,
        user=user,
        restart_marker=_restart(item.data),
        detail=word,
        phase=phase,
    )


def _price(item: Item, specs: Mapping[str, Spec], prices: Prices | None) -> float:
    """Thunder tells no price of an instance: what its parts cost. Not a number when the price
    list does not know them."""
    data = item.data
    count = _whole(data.get("numGpus")) or 1
    spec = specs.get(f"{str(data.get('gpuType', '')).lower()}_x{count}")
    if spec is None or prices is None:
        return math.nan
    vcpus = _whole(data.get("cpuCores")) or spec.vcpus[0]
    price = prices.usd_per_hour(spec, vcpus, _whole(data.get("storage")) or 0)
    return math.nan if price is None else price


def _restart(data: Mapping[str, Any]) -> str:
    """A restart of the container. A new address alone is none: instances migrate. The first list
    has to have something to compare with, so no restart is a word too."""
    last = data.get("lastRestart")
    return str(last.get("timestamp") or "?") if isinstance(last, dict) else "never"


def _port(value: Any) -> int | None:
    """None told is ssh's own."""
    return 22 if value in (None, "", 0, "0") else port_of(value)


def _whole(value: Any) -> int | None:
    """Thunder writes numbers as text, with a unit at times."""
    match = re.match(r"\s*(\d{1,9})\b", str(value)) if value is not None else None
    return int(match[1]) if match else None
