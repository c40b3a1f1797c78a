"""Offers: instance types at a price, and what a job needs of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

# How far a boot is: a host is looked for, the image is pulled, the box runs but nobody was told
# where it answers, and ready.
BootPhase = Literal["assigning", "starting", "endpoint", "ready"]
Stock = Literal["HIGH", "MEDIUM", "LOW", "NONE", "UNKNOWN"]
ANY_GPU = "*"


@dataclass(frozen=True)
class Need:
    """What the job asks for: alternatives of (GPU name or "cpu", count), and the rest.

    `ANY_GPU` as a name stands for every GPU there is, for a price list. Empty text and 0 ask for
    nothing.
    """

    gpus: tuple[tuple[str, int], ...]
    disk_gb: int
    vcpus: int = 0
    ram_gb: int = 0
    region: str = ""
    cloud: str = ""
    min_cuda: str = ""
    volume: str = ""


@dataclass(frozen=True)
class Rental:
    """How an instance is made, whichever offer is taken: `image` "auto" is the provider's own
    choice; `volume` is a disk of the account that is mounted at `volume_path`."""

    image: str = "auto"
    min_cuda: str = ""
    volume: str = ""
    volume_path: str = "/workspace"
    ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Offer:
    """One instance type at a price, at one place. `id` is unique with its provider and means
    nothing here, as `details` does: what the adapter needs to rent it. `region` is a data centre
    in the provider's word; `seen_at` is when price and stock were told.
    """

    provider: str
    id: str
    gpu: str
    count: int
    vcpus: int
    ram_gb: int
    disk_gb: int
    usd_per_hour: float
    region: str = ""
    cloud: str = ""
    stock: Stock = "UNKNOWN"
    seen_at: datetime | None = None
    details: Mapping[str, str] = field(default_factory=dict)


_STOCK: Mapping[Stock, int] = {"HIGH": 0, "MEDIUM": 1, "UNKNOWN": 2, "LOW": 3, "NONE": 4}


def rank(offers: Iterable[Offer], order: str, providers: tuple[str, ...]) -> tuple[Offer, ...]:
    """Cheapest first, or in the order the job lists its providers; at one price where the stock
    is largest; ties by name, always."""
    listed = {name: place for place, name in enumerate(providers)}

    def by_price(offer: Offer) -> tuple[float, int, str, str]:
        return (offer.usd_per_hour, _STOCK[offer.stock], offer.provider, offer.id)

    if order == "listed":
        return tuple(sorted(offers, key=lambda offer: (listed[offer.provider], *by_price(offer))))
    return tuple(sorted(offers, key=by_price))
