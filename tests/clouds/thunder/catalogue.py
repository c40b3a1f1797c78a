"""What is rented out, for how much (reference/thunder.md §4; specs as of 2026-08, prices drift)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VCPU_USD, DISK_GB_USD, SNAPSHOT_GB_USD = 0.04, 0.0003, 0.00006849


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

    def ram_gb(self, vcpus: int) -> int:
        if self.ram_cap is None:
            return vcpus * self.ram_per_vcpu
        return self.ram_cap - (max(self.vcpus) - vcpus) * self.ram_per_vcpu

    def price(self, vcpus: int, disk_gb: int) -> float:
        more_vcpus = max(0, vcpus - self.vcpus[0]) * VCPU_USD
        return self.usd_per_hour + more_vcpus + max(0, disk_gb - 100 * self.count) * DISK_GB_USD


SPECS: Mapping[str, Spec] = {
    each.key: each
    for each in (
        Spec("a6000", 1, "RTX A6000", 48, (6, 8), 8, (100, 500), 0.35),
        Spec("l40", 1, "L40", 48, (6, 8, 12), 8, (100, 500), 0.79),
        Spec("a100xl", 1, "A100 80GB", 80, (8, 12, 16), 8, (100, 500), 1.09),
        Spec("a100xl", 2, "A100 80GB", 80, (16, 20, 24), 8, (100, 1000), 2.18),
        Spec("a100xl", 4, "A100 80GB", 80, (60, 36, 44, 52), 8, (100, 2000), 5.96, 420),
        Spec("h100", 1, "H100", 80, (4, 8, 12, 16), 8, (100, 500), 2.19),
        Spec("h100", 2, "H100", 80, (8, 12, 16, 20, 24), 8, (100, 1000), 6.40),
        Spec("h100", 8, "H100", 80, (120,), 8, (100, 4000), 25.60),
    )
}
TEMPLATES: Mapping[str, str] = {
    "base": "Ubuntu 22.04 with PyTorch",
    "ollama": "Ollama",
    "comfy-ui": "ComfyUI",
    "unsloth": "Unsloth",
    "cuda12-9": "CUDA 12.9",
}


def specs_json() -> dict[str, Any]:
    return {"specs": {key: _spec_json(spec) for key, spec in SPECS.items()}}


def pricing_json() -> dict[str, Any]:
    """Whole instances, what is on top, and old keys that mean nothing any more."""
    old = {"h100": 1.38, "a100xl_production": 1.79}
    extra = {
        "additional_vcpus": VCPU_USD,
        "disk_gb": DISK_GB_USD,
        "snapshot_gb": SNAPSHOT_GB_USD,
    }
    return {"pricing": {**{k: s.usd_per_hour for k, s in SPECS.items()}, **extra, **old}}


def status_json(out: frozenset[str]) -> dict[str, Any]:
    words = {key: "unavailable" if key in out else "available" for key in SPECS}
    return {"specs": words, "gpu_type": {spec.gpu: "available" for spec in SPECS.values()}}


def templates_json() -> dict[str, Any]:
    return {
        key: {
            "displayName": name,
            "extendedDescription": name,
            "automountFolders": [],
            "cleanupCommands": [],
            "openPorts": [],
            "startupCommands": [],
            "default": key == "base",
        }
        for key, name in TEMPLATES.items()
    }


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
