"""RunPod's price list as offers: one for each GPU type, count, cloud and data centre."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, get_args

from orchestrator.adapters.replies import amount_of
from orchestrator.core.gpus import canonical, fits
from orchestrator.core.offer import Need, Offer, Stock

CLOUDS: Mapping[str, str] = {"SECURE": "secure", "COMMUNITY": "community"}
_CENTRE = re.compile(r"[A-Za-z0-9_-]{1,40}")


def clouds_of(need: Need) -> list[str]:
    """The clouds to ask about. A volume exists in the secure one alone."""
    clouds = [vendor for vendor, ours in CLOUDS.items() if need.cloud in ("", ours)]
    return [vendor for vendor in clouds if vendor == "SECURE" or not need.volume]


def counts_of(need: Need) -> list[int]:
    return sorted({count for gpu, count in need.gpus if gpu != "cpu"})


def to_offers(
    data: Any, need: Need, *, cloud: str, count: int, seen_at: datetime, centre: str = ""
) -> Iterator[Offer]:
    """The offers in one answer of `/v2/catalog/gpus`. What cannot be read is passed over: a new
    field or a strange entry must not hide the rest. `centre` is where the volume is."""
    entries = data.get("gpus") if isinstance(data, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        try:
            yield from _of_type(entry, need, cloud=cloud, count=count, at=seen_at, centre=centre)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue


def _of_type(
    entry: Mapping[str, Any], need: Need, *, cloud: str, count: int, at: datetime, centre: str
) -> Iterator[Offer]:
    kind, name = str(entry["id"]), canonical(str(entry["id"]))
    ours = CLOUDS[cloud]
    wanted = any(fits(gpu, name) and number == count for gpu, number in need.gpus)
    if not wanted or not entry.get(ours) or count > int(entry["maxCount"][ours]):
        return
    price = round(amount_of(entry["price"][ours]) * count, 6)
    if not price > 0:  # nor when nobody knows it
        return
    for region, stock in _places(entry, centre or need.region):
        yield Offer(
            provider="runpod",
            id=":".join([kind, str(count), cloud, region]),
            gpu=name,
            count=count,
            vcpus=0,
            ram_gb=0,
            disk_gb=need.disk_gb,
            usd_per_hour=price,
            region=region,
            cloud=ours,
            stock=stock,
            seen_at=at,
            details={"gpu": kind, "cloud": cloud},
        )


def _places(entry: Mapping[str, Any], only: str) -> Iterator[tuple[str, Stock]]:
    """Data centres with their stock; stock differs by data centre, and the sum misleads. Where
    none is named, RunPod chooses."""
    centres = entry.get("dataCenters") or []
    if not centres and not only:
        yield "", _stock(entry.get("availability"))
    for centre in centres:
        name = centre.get("id") if isinstance(centre, dict) else None
        if not isinstance(name, str) or not _CENTRE.fullmatch(name):
            continue
        if not only or name.upper() == only.upper():
            yield name, _stock(centre.get("availability"))


def _stock(word: Any) -> Stock:
    return next((each for each in get_args(Stock) if each == word), "UNKNOWN")
