"""What is rented out, for how much (§1.2, §4; specs as of 2026-08, prices drift)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

VCPU_USD, DISK_GB_USD, SNAPSHOT_GB_USD = 0.04, 0.0003, 0.00006849  # an hour
FREE_DISK_GB = 100  # with each GPU
COUNTS = (1, 2, 4, 8)
VIRTUAL_COUNTS = (1, 2)


@dataclass(frozen=True)
class Spec:
    """`vcpus[0]` is included in the price; the order is the vendor's."""

    gpu: str
    count: int
    name: str
    vram_gb: int
    vcpus: tuple[int, ...]
    ram_per_vcpu: int
    disk: tuple[int, int]
    usd_per_hour: float
    ram_cap: int | None = None

    @property
    def key(self) -> str:
        return f"{self.gpu}_x{self.count}"

    @property
    def mode(self) -> str:
        """The kind that the count stands for since there is no mode any more (§0.3)."""
        return "prototyping" if self.count in VIRTUAL_COUNTS else "production"

    def ram_gb(self, vcpus: int) -> int:
        if self.ram_cap is None:
            return vcpus * self.ram_per_vcpu
        return self.ram_cap - (max(self.vcpus) - vcpus) * self.ram_per_vcpu

    def price(self, vcpus: int, disk_gb: int, factor: float = 1.0) -> float:
        """USD an hour; `factor` is what the price list has been multiplied with."""
        more_vcpus = max(0, vcpus - self.vcpus[0]) * VCPU_USD
        more_disk = max(0, disk_gb - FREE_DISK_GB * self.count) * DISK_GB_USD
        return self.usd_per_hour * factor + more_vcpus + more_disk


# No source has the vCPUs of a100xl_x2, nor the price of a100xl_x8: ours, in line with the others.
SPECS: Mapping[str, Spec] = {
    each.key: each
    for each in (
        Spec("a6000", 1, "RTX A6000", 48, (6, 8), 8, (100, 500), 0.35),
        Spec("l40", 1, "L40", 48, (6, 8, 12), 8, (100, 500), 0.79),
        Spec("a100xl", 1, "A100 80GB", 80, (8, 12, 16), 8, (100, 500), 1.09),
        Spec("a100xl", 2, "A100 80GB", 80, (16, 20, 24), 8, (100, 1000), 2.18),
        Spec("a100xl", 4, "A100 80GB", 80, (60, 36, 44, 52), 8, (100, 2000), 5.96, 420),
        Spec("a100xl", 8, "A100 80GB", 80, (120,), 8, (100, 4000), 11.92),
        Spec("h100", 1, "H100", 80, (4, 8, 12, 16), 8, (100, 500), 2.19),
        Spec("h100", 2, "H100", 80, (8, 12, 16, 20, 24), 8, (100, 1000), 6.40),
        Spec("h100", 8, "H100", 80, (120,), 8, (100, 4000), 25.60),
    )
}
GPUS = tuple(dict.fromkeys(spec.gpu for spec in SPECS.values()))
TEMPLATES: Mapping[str, str] = {
    "base": "Ubuntu 22.04 with PyTorch",
    "ollama": "Ollama",
    "comfy-ui": "ComfyUI",
    "forge-neo": "Forge Neo",
    "unsloth": "Unsloth",
    "cuda12-8": "CUDA 12.8",
    "cuda12-9": "CUDA 12.9",
}
_ITEMS = {"additional_vcpus": VCPU_USD, "disk_gb": DISK_GB_USD, "snapshot_gb": SNAPSHOT_GB_USD}
# Keys that mean nothing any more and are still told.
_LEFTOVERS = {"h100": 1.38, "a100xl": 0.78, "a6000_native": 0.27, "a100xl_production": 1.79}


def specs_json() -> dict[str, Any]:
    return {"specs": {key: _spec_json(spec) for key, spec in SPECS.items()}}


def old_specs_json() -> dict[str, Any]:
    """/v1, from when the mode was part of the key."""
    table = {_old_key(spec): {**_spec_json(spec), "mode": spec.mode} for spec in SPECS.values()}
    return {"specs": table}


def pricing_json(factors: Mapping[str, float], missing: Collection[str] = ()) -> dict[str, Any]:
    """Whole instances (each by its factor), what is on top, and leftovers."""
    table = {
        key: round(spec.usd_per_hour * factors.get(key, 1.0), 6)
        for key, spec in SPECS.items()
        if key not in missing
    }
    return {"pricing": {**table, **_ITEMS, **_LEFTOVERS}}


def old_pricing_json() -> dict[str, Any]:
    return {"pricing": {**{_old_key(spec): spec.usd_per_hour for spec in SPECS.values()}, **_ITEMS}}


def status_json(out: Collection[str]) -> dict[str, Any]:
    """`gpu_type` can disagree with `specs`, which is the one to believe: it is never out."""
    words = {key: "unavailable" if key in out else "available" for key in SPECS}
    return {"specs": words, "gpu_type": dict.fromkeys(GPUS, "available")}


def templates_json() -> dict[str, Any]:
    return {key: _template_json(key, name) for key, name in TEMPLATES.items()}


def _old_key(spec: Spec) -> str:
    return f"{spec.key}_{spec.mode}"


def _spec_json(spec: Spec) -> dict[str, Any]:
    cap = {} if spec.ram_cap is None else {"ramCapGiB": spec.ram_cap}
    return {
        "displayName": spec.name,
        "gpuCount": spec.count,
        "vramGB": spec.vram_gb,
        "vcpuOptions": list(spec.vcpus),
        "ramPerVCPUGiB": spec.ram_per_vcpu,
        **cap,
        "storageGB": {"min": spec.disk[0], "max": spec.disk[1]},
    }


def _template_json(key: str, name: str) -> dict[str, Any]:
    return {
        "displayName": name,
        "extendedDescription": name,
        "automountFolders": [],
        "cleanupCommands": [],
        "openPorts": [],
        "startupCommands": [],
        "default": key == "base",
    }
