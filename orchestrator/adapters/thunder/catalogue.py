"""Thunder Compute's specs and prices: what may be rented, with how many CPUs and how much disk,
and what an hour of it costs (reference/thunder.md §1.2, §1.3, §4)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.adapters.replies import amount_of
from orchestrator.core.gpus import canonical, fits
from orchestrator.core.offer import Need, Offer, Stock

FREE_DISK_GB = 100
_KEY = re.compile(r"([a-z0-9]+)_x([0-9]+)")


@dataclass(frozen=True)
class Spec:
    """One `<gpu>_x<n>`. The first of `vcpus` is the number that the price includes; they are in
    the vendor's order, which is not by size."""

    gpu: str
    count: int
    vcpus: tuple[int, ...]
    ram_per_vcpu_gb: float
    ram_cap_gb: float | None
    disk_min_gb: int
    disk_max_gb: int

    @property
    def key(self) -> str:
        return f"{self.gpu}_x{self.count}"

    @property
    def disk_free_gb(self) -> int:
        """How much disk the price includes."""
        return FREE_DISK_GB * self.count

    def ram_gb(self, vcpus: int) -> int:
        if self.ram_cap_gb is None:
            return int(vcpus * self.ram_per_vcpu_gb)
        return int(self.ram_cap_gb - (max(self.vcpus) - vcpus) * self.ram_per_vcpu_gb)


@dataclass(frozen=True)
class Prices:
    """USD an hour: whole instances by key, and what is on top; None when that was not told."""

    by_key: Mapping[str, float]
    vcpu: float | None
    disk_gb: float | None

    def usd_per_hour(self, spec: Spec, vcpus: int, disk_gb: int) -> float | None:
        """None when a price that it takes is not known: nothing is rented at a guess."""
        parts = (
            (1, self.by_key.get(spec.key)),
            (max(0, vcpus - spec.vcpus[0]), self.vcpu),
            (max(0, disk_gb - spec.disk_free_gb), self.disk_gb),
        )
        total = 0.0
        for count, price in parts:
            if count and price is None:
                return None
            total += count * (price or 0.0)
        return round(total, 6)


def read_specs(data: Any) -> dict[str, Spec]:
    """Specs by key. What cannot be read is passed over."""
    table = data.get("specs") if isinstance(data, dict) else None
    found = {}
    for key, entry in table.items() if isinstance(table, dict) else ():
        match = _KEY.fullmatch(str(key))
        try:
            spec = _spec(match[1], int(match[2]), entry) if match else None
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if spec and spec.vcpus:
            found[spec.key] = spec
    return found


def read_prices(data: Any) -> Prices:
    table = data.get("pricing") if isinstance(data, dict) else None
    told = {
        str(key): amount_of(value)
        for key, value in (table.items() if isinstance(table, dict) else ())
    }
    known = {key: value for key, value in told.items() if not math.isnan(value)}
    by_key = {key: value for key, value in known.items() if value > 0 and _KEY.fullmatch(key)}
    return Prices(by_key, known.get("additional_vcpus"), known.get("disk_gb"))


def read_stock(data: Any) -> Mapping[str, Stock]:
    """By key; without a word of it a spec counts as available, as Thunder's own client has it."""
    table = data.get("specs") if isinstance(data, dict) else None
    if not isinstance(table, dict):
        return {}
    return {
        str(key): "NONE" if str(value).lower() == "unavailable" else "UNKNOWN"
        for key, value in table.items()
    }


def to_offers(
    specs: Mapping[str, Spec],
    prices: Prices,
    stock: Mapping[str, Stock],
    need: Need,
    seen_at: datetime,
) -> Iterator[Offer]:
    for spec in specs.values():
        name = canonical(spec.gpu)
        if not any(fits(gpu, name) and count == spec.count for gpu, count in need.gpus):
            continue
        vcpus = _choose_vcpus(spec, need)
        # What costs nothing is taken, as Thunder's own client does.
        disk_gb = max(need.disk_gb, spec.disk_min_gb, min(spec.disk_free_gb, spec.disk_max_gb))
        if vcpus is None or disk_gb > spec.disk_max_gb:
            continue
        price = prices.usd_per_hour(spec, vcpus, disk_gb)
        if price is None:
            continue
        yield Offer(
            provider="thunder",
            id=f"{spec.key}:{vcpus}:{disk_gb}",
            gpu=name,
            count=spec.count,
            vcpus=vcpus,
            ram_gb=spec.ram_gb(vcpus),
            disk_gb=disk_gb,
            usd_per_hour=price,
            stock=stock.get(spec.key, "UNKNOWN"),
            seen_at=seen_at,
            details={"gpu_type": spec.gpu},
        )


def _spec(gpu: str, count: int, entry: Mapping[str, Any]) -> Spec:
    storage, cap = entry["storageGB"], entry.get("ramCapGiB")
    return Spec(
        gpu=gpu,
        count=count,
        vcpus=tuple(int(each) for each in entry["vcpuOptions"]),
        ram_per_vcpu_gb=float(entry["ramPerVCPUGiB"]),
        ram_cap_gb=float(cap) if cap else None,
        disk_min_gb=int(storage["min"]),
        disk_max_gb=int(storage["max"]),
    )


def _choose_vcpus(spec: Spec, need: Need) -> int | None:
    """What is included where that is enough, else the fewest that are."""
    enough = [
        each for each in spec.vcpus if each >= need.vcpus and spec.ram_gb(each) >= need.ram_gb
    ]
    return spec.vcpus[0] if spec.vcpus[0] in enough else min(enough, default=None)
