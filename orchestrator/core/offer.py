"""Offers: instance types at a price, and what a job needs of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """What the job asks for: alternatives of (GPU name or "cpu", count), and the rest."""

    gpus: tuple[tuple[str, int], ...]
    disk_gb: int
    vcpus: int = 0
    ram_gb: int = 0


@dataclass(frozen=True)
class Offer:
    """One instance type at a price. `id` is the provider's own word and means nothing here."""

    provider: str
    id: str
    gpu: str
    count: int
    vcpus: int
    ram_gb: int
    disk_gb: int
    usd_per_hour: float


def rank(offers: Iterable[Offer], order: str, providers: tuple[str, ...]) -> tuple[Offer, ...]:
    """Cheapest first, or in the order the job lists its providers; ties by name, always."""
    listed = {name: place for place, name in enumerate(providers)}

    def by_price(offer: Offer) -> tuple[float, str, str]:
        return (offer.usd_per_hour, offer.provider, offer.id)

    if order == "listed":
        return tuple(sorted(offers, key=lambda offer: (listed[offer.provider], *by_price(offer))))
    return tuple(sorted(offers, key=by_price))
