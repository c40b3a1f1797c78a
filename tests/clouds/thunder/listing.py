"""The one list of instances, with everything that may be wrong with it (§1.4, §1.7.1, §1.7.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from clouds.faults import Faults
from clouds.thunder.fleet import Fleet
from clouds.thunder.instances import Instance
from clouds.thunder.replies import by_fault

Item = dict[str, Any]
MAY_BE_MISSING = ("mode", "httpPorts", "k8s", "promoted", "provisioningTime", "restoringTime")


def answer(fleet: Fleet, *, fresh: bool) -> Response:
    """An object by index. `fresh` is ?update_ips=true."""
    now = fleet.clock.now()
    ran_s = max((each.running_s(now) for each in fleet.living()), default=-1.0)
    if ran_s >= 0 and fleet.faults.take("list-empty-once", since_s=ran_s):
        return JSONResponse({})
    listed = [each for each in fleet.living() if not _is_hidden(each, fleet.faults, now)]
    shapes = [shape for name, shape in SHAPES.items() if fleet.faults.peek(name)]
    items = {}
    for each in listed:
        item = _with_address(each, each.to_json(now), fresh=fresh)
        for shape in shapes:
            item = shape(item)
        items[str(each.index)] = item
    response = JSONResponse(items)
    return by_fault(response) if shapes else response


def _is_hidden(instance: Instance, faults: Faults, now: datetime) -> bool:
    if instance.hidden_until and now < instance.hidden_until:
        return True
    lag = faults.peek("list-empty-after-create", **instance.facts)
    return lag is not None and instance.age_s(now) < float(lag["for_s"])


def _with_address(instance: Instance, item: Item, *, fresh: bool) -> Item:
    """A refreshed address stays so."""
    if fresh:
        instance.old_port = 0
    elif instance.old_port and item["port"]:
        item["port"] = instance.old_port
    return item


def _otherwise(item: Item) -> Item:
    """The spellings that were seen besides the usual ones."""
    return {
        **item,
        "status": item["status"].lower(),
        "ip": item["ip"] or "",
        "cpuCores": int(item["cpuCores"]),
        "numGpus": int(item["numGpus"]),
        "memory": f"{item['memory']} GB",
    }


def _sparse(item: Item) -> Item:
    return {key: item[key] for key in item if key not in MAY_BE_MISSING}


SHAPES: Mapping[str, Callable[[Item], Item]] = {"item-types": _otherwise, "item-sparse": _sparse}
