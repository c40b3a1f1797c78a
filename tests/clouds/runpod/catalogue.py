"""What RunPod rents out here: GPU types, data centers, and how many are free in each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """Prices are in USD per hour for one GPU."""

    id: str
    name: str
    pool: str
    memory: int
    secure_usd: float
    community_usd: float
    max_count: int = 8


@dataclass(frozen=True)
class Center:
    """`cuda` is what its hosts' drivers run; free GPUs by type, in machines of `max_count`."""

    id: str
    name: str
    region: str
    country: str
    cuda: str
    free: tuple[tuple[str, int], ...]
    volumes: tuple[str, ...] = ("STANDARD",)


A40 = "NVIDIA A40"
RTX4090 = "NVIDIA GeForce RTX 4090"
L40S = "NVIDIA L40S"
A100_PCIE = "NVIDIA A100 80GB PCIe"
A100_SXM = "NVIDIA A100-SXM4-80GB"
H100_PCIE = "NVIDIA H100 PCIe"
H100_SXM = "NVIDIA H100 80GB HBM3"
H200 = "NVIDIA H200"
H100_SLICE = "NVIDIA H100 80GB HBM3 MIG 1g.24gb"

GPUS = {
    gpu.id: gpu
    for gpu in (
        Gpu(A40, "A40", "AMPERE_48", 48, 0.40, 0.35),
        Gpu(RTX4090, "RTX 4090", "ADA_24", 24, 0.69, 0.34),
        Gpu(L40S, "L40S", "ADA_48_PRO", 48, 0.86, 0.79),
        Gpu(A100_PCIE, "A100 PCIe", "AMPERE_80", 80, 1.39, 1.19),
        Gpu(A100_SXM, "A100 SXM", "AMPERE_80", 80, 1.49, 1.39),
        Gpu(H100_PCIE, "H100 PCIe", "ADA_80_PRO", 80, 2.39, 1.99),
        Gpu(H100_SXM, "H100 SXM", "ADA_80_PRO", 80, 2.69, 2.59),
        Gpu(H200, "H200 SXM", "HOPPER_141", 141, 3.59, 3.59),
        Gpu(H100_SLICE, "H100 MIG 1g.24gb", "ADA_80_PRO", 24, 0.61, 0.0, 1),
    )
}

CENTERS = {
    center.id: center
    for center in (
        Center("CA-MTL-1", "Canada Montreal 1", "NORTH_AMERICA", "CA", "12.8",
               ((A40, 10), (RTX4090, 4), (A100_PCIE, 4))),
        Center("EU-SE-1", "Sweden 1", "EUROPE", "SE", "12.8", ((A40, 4), (A100_SXM, 8))),
        Center("EU-RO-1", "Romania 1", "EUROPE", "RO", "13.0",
               ((RTX4090, 16), (L40S, 8), (H200, 8)), ("STANDARD", "HIGH_PERFORMANCE")),
        Center("US-KS-2", "US Kansas 2", "NORTH_AMERICA", "US", "12.8",
               ((A40, 2), (RTX4090, 8), (H100_SXM, 16), (H100_SLICE, 7))),
        Center("US-GA-2", "US Georgia 2", "NORTH_AMERICA", "US", "12.4",
               ((A40, 8), (H100_PCIE, 8), (A100_PCIE, 2)), ()),
    )
}  # fmt: skip

FLAVORS = {"cpu3c": 0.03, "cpu5c": 0.04}  # USD per vCPU and hour
Taken = dict[tuple[str, str], int]  # GPUs in use by (data center, type)


def free(center: Center, gpu: str, taken: Taken) -> int:
    return dict(center.free).get(gpu, 0) - taken.get((center.id, gpu), 0)


def level(left: int, count: int) -> str:
    """The word for `left` free GPUs when `count` are wanted on one machine."""
    if left < count:
        return "NONE"
    return "LOW" if left < 2 * count else "MEDIUM" if left < 4 * count else "HIGH"


def price_usd(gpu: str, count: int, cloud: str) -> float:
    type_ = GPUS[gpu]
    return round(count * (type_.secure_usd if cloud == "SECURE" else type_.community_usd), 4)


def place(
    gpu: str, count: int, wanted: Iterable[str], cuda: tuple[str, bool], taken: Taken
) -> Center | None:
    """The first of the wanted data centers, or of all, with a machine that has `count` free.
    `cuda` is a version and whether it is a floor; an empty one is any."""
    names = list(wanted) or list(CENTERS)
    if count > GPUS[gpu].max_count:
        return None
    for center in (CENTERS[name] for name in names):
        if free(center, gpu, taken) >= count and _runs(center.cuda, *cuda):
            return center
    return None


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _runs(host: str, wanted: str, floor: bool) -> bool:
    """Whether a host's driver will do; several exact versions are joined by commas."""
    if not wanted:
        return True
    return version(host) >= version(wanted) if floor else host in wanted.split(",")
