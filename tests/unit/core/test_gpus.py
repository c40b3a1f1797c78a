"""What vendors call a GPU, what we call it, and whether it is the one a job asks for."""

from __future__ import annotations

import re

import pytest

from orchestrator.core.gpus import canonical, fits, suggest
from orchestrator.core.offer import ANY_GPU

NAMES = {
    "NVIDIA A100 80GB PCIe": "A100-80GB-PCIe",
    "NVIDIA A100-SXM4-80GB": "A100-80GB-SXM",
    "NVIDIA A100-SXM4-40GB": "A100-40GB-SXM",
    "NVIDIA H100 80GB HBM3": "H100-80GB-SXM",
    "NVIDIA H100 PCIe": "H100-80GB-PCIe",
    "NVIDIA H100 NVL": "H100-94GB-NVL",
    "NVIDIA H200": "H200",
    "NVIDIA L40S": "L40S",
    "NVIDIA A40": "A40",
    "NVIDIA GeForce RTX 4090": "RTX4090",
    "NVIDIA GeForce RTX 3080 Ti": "RTX3080-Ti",
    "NVIDIA RTX A6000": "RTXA6000",
    "NVIDIA RTX 6000 Ada Generation": "RTX6000-Ada",
    "Tesla V100-PCIE-16GB": "V100-PCIE-16GB",
    "AMD Instinct MI300X OAM": "MI300X-OAM",
    "a100xl": "A100-80GB",
    "a100": "A100-40GB",
    "h100": "H100-80GB",
    "a6000": "RTXA6000",
    "l40": "L40",
    "l40s": "L40S",
    "t4": "T4",
}
SLICE = "H100-80GB-SXM-MIG-1g.24gb"


@pytest.mark.parametrize(("vendor", "ours"), NAMES.items(), ids=NAMES)
def test_names_of_vendors(vendor: str, ours: str) -> None:
    assert canonical(vendor) == ours


@pytest.mark.parametrize("vendor", NAMES)
def test_our_name_is_its_own_name_and_fits_itself(vendor: str) -> None:
    name = canonical(vendor)
    assert canonical(name) == name
    assert fits(name, name)
    assert fits(name.lower(), name)


# HBM3 is in no name of ours: H100-SXM is what a job writes.
@pytest.mark.parametrize("vendor", [each for each in NAMES if "HBM3" not in each and " " in each])
def test_what_a_vendor_writes_may_be_wanted(vendor: str) -> None:
    assert fits(vendor, canonical(vendor))


def test_a_slice_is_named_after_its_whole() -> None:
    name = canonical("NVIDIA H100 80GB HBM3 MIG 1g.24gb")
    assert name.startswith("H100-80GB")
    assert "MIG" in name and "1g.24gb" in name


@pytest.mark.parametrize(
    "vendor", ["NVIDIA H100; rm -rf /", "\x1b[31mA40", "A40\nB", "a/../b", "A40 $(id)", "", "é"]
)
def test_a_hostile_name_becomes_letters_digits_dots_and_dashes(vendor: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9.-]*", canonical(vendor))


FITS = [
    ("A100", "A100-80GB-PCIe"),
    ("a100", "A100-80GB-SXM"),
    ("A100", "A100-40GB"),
    ("A100-80GB", "A100-80GB-SXM"),
    ("a100-sxm", "A100-80GB-SXM"),
    ("a100_80gb", "A100-80GB"),
    ("A100 80GB", "A100-80GB"),
    ("H100", "H100-94GB-NVL"),
    ("h100-pcie", "H100-80GB-PCIe"),
    ("4090", "RTX4090"),
    ("RTX4090", "RTX4090"),
    ("rtx 4090", "RTX4090"),
    ("RTX-4090", "RTX4090"),
    ("NVIDIA GeForce RTX 4090", "RTX4090"),
    ("A6000", "RTXA6000"),
    ("RTX A6000", "RTXA6000"),
    ("6000-Ada", "RTX6000-Ada"),
    ("H100-MIG", SLICE),
    ("H100-80GB-MIG-1g.24gb", SLICE),
    (ANY_GPU, "A40"),
]
MISSES = [
    ("A100", "A1000"),
    ("A10", "A100-80GB"),
    ("A100-40GB", "A100-80GB-SXM"),
    ("A100-SXM", "A100-80GB-PCIe"),
    ("A100-80GB-SXM", "A100-80GB"),
    ("L40", "L40S"),
    ("L40S", "L40"),
    ("4090", "RTX4080"),
    ("4090", "RTX4090D"),
    ("A6000", "RTX6000-Ada"),
    ("RTX6000", "RTXA6000"),
    ("80GB", "A100-80GB"),
    ("SXM", "A100-80GB-SXM"),
    ("H100", SLICE),
    ("H100-80GB", SLICE),
    ("H100-MIG", "H100-80GB-SXM"),
    (ANY_GPU, SLICE),
    ("", "A40"),
    ("NVIDIA", "A40"),
    ("A40", ""),
    ("cpu", "A40"),
]


@pytest.mark.parametrize(("wanted", "offered"), FITS)
def test_fits(wanted: str, offered: str) -> None:
    assert fits(wanted, offered)


@pytest.mark.parametrize(("wanted", "offered"), MISSES)
def test_does_not_fit(wanted: str, offered: str) -> None:
    assert not fits(wanted, offered)


@pytest.mark.parametrize(
    ("wanted", "first"),
    [("H10O", "H100"), ("a10", "A100"), ("rtx409", "RTX4090"), ("H2000", "H200")],
)
def test_suggests_what_looks_like_it(wanted: str, first: str) -> None:
    assert suggest(wanted, ["RTX4090", "A100", "H100", "H200"])[0] == first


def test_suggests_three_at_most_and_nothing_for_nonsense() -> None:
    known = ["A100-80GB-SXM", "A100-80GB-PCIe", "A100-40GB", "A100-40GB-SXM"]
    assert len(suggest("A100-80", known)) <= 3
    assert suggest("typewriter", known) == []
    assert suggest("A100", []) == []


def test_suggestions_do_not_depend_on_the_order() -> None:
    known = ["L40S", "L40", "L4"]
    assert suggest("L400", known) == suggest("L400", reversed(known))
