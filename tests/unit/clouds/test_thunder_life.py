"""The Thunder emulator's pure parts: a boot as a function of time, indices, prices, bodies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clouds.cloud import Call
from clouds.thunder.catalogue import SPECS, pricing_json, specs_json
from clouds.thunder.faults import FAULTS
from clouds.thunder.instances import Boot, Instance, free_index, renumber
from clouds.thunder.replies import Refusal
from clouds.thunder.sshkeys import fingerprint, key_pair
from clouds.thunder.validate import Order, to_change, to_order, to_ports

START = datetime(2026, 11, 20, 10, tzinfo=UTC)
BODY = {
    "gpu_type": "a100xl",
    "num_gpus": 4,
    "cpu_cores": 60,
    "disk_size_gb": 400,
    "template": "base",
}
FOUR = Order(SPECS["a100xl_x4"], 60, 400, "base")


def made(index: int = 0, boot: Boot | None = None, order: Order = FOUR) -> Instance:
    boot = boot or Boot(10.0, 5.0, 2.0)
    return Instance(f"u{index}", index, order, ["ssh-ed25519 AAAA gpujob-a"], START, boot)


def call(**body: Any) -> Call:
    return Call("POST", "/", body=body)


def refused(body: dict[str, Any], snapshots: dict[str, int] | None = None) -> tuple[str, str]:
    with pytest.raises(Refusal) as caught:
        to_order(call(**body), snapshots or {})
    assert caught.value.status == 400
    return caught.value.slug or "invalid_request", caught.value.message


@pytest.mark.parametrize(
    ("age_s", "boot", "word"),
    [
        pytest.param(0.0, Boot(10, 5, 2), "PENDING", id="at once"),
        pytest.param(1.5, Boot(10, 5, 2), "STARTING", id="booting"),
        pytest.param(10.0, Boot(10, 5, 2), "RUNNING", id="booted"),
        pytest.param(1.5, Boot(10, 5, 2, unknown_s=3), "UNKNOWN", id="unknown first"),
        pytest.param(3.5, Boot(10, 5, 2, unknown_s=3), "STARTING", id="unknown no more"),
        pytest.param(9999.0, Boot(10, 5, 2, ends=False), "STARTING", id="stuck"),
        pytest.param(5.0, Boot(10, 5, 2, words=("QUEUED", "CREATING")), "CREATING", id="words"),
        pytest.param(0.0, Boot(0, 0, 0), "RUNNING", id="no boot"),
    ],
)
def test_a_boot_is_a_function_of_time(age_s: float, boot: Boot, word: str) -> None:
    assert made(boot=boot).status(START + timedelta(seconds=age_s)) == word


def test_the_address_comes_after_running_and_the_port_after_the_address() -> None:
    instance = made()
    assert not instance.has_address(START + timedelta(seconds=14.9))
    assert instance.has_address(START + timedelta(seconds=15))
    assert instance.opens_at == START + timedelta(seconds=17)


def test_a_spell_passes_and_a_delete_does_not() -> None:
    instance = made()
    later = START + timedelta(seconds=20)
    instance.spell("MIGRATING", later, 3)
    assert instance.status(later) == "MIGRATING"
    assert instance.status(later + timedelta(seconds=3)) == "RUNNING"
    instance.halted = True
    assert instance.status(later + timedelta(seconds=3)) == "STOPPED"
    instance.deleting_at = later
    assert instance.status(later) == "DELETING"


def test_a_modify_is_told_late() -> None:
    instance = made()
    now = START + timedelta(seconds=60)
    instance.become(Order(SPECS["a100xl_x4"], 60, 900, "base"), now, stale_s=5, takes_s=10)
    told = [
        (instance.to_json(at)["status"], instance.to_json(at)["storage"])
        for at in (now + timedelta(seconds=s) for s in (0, 5, 15))
    ]
    assert told == [("RUNNING", 400), ("MODIFYING", 900), ("RUNNING", 900)]


def test_indices_are_used_again_and_always_differ() -> None:
    living = [made(0), made(1), made(3)]
    assert free_index(living) == 2
    for _ in range(20):
        before = [each.index for each in living]
        renumber(living)
        after = [each.index for each in living]
        assert len(set(after)) == 3 and all(a != b for a, b in zip(before, after, strict=True))
    alone = [made(0)]
    renumber(alone)
    assert alone[0].index == 1
    assert free_index([]) == 0


@pytest.mark.parametrize(
    ("spec", "vcpus", "disk_gb", "usd"),
    [
        pytest.param("a6000_x1", 6, 100, 0.35, id="what is included"),
        pytest.param("a6000_x1", 8, 100, 0.35 + 2 * 0.04, id="vcpus"),
        pytest.param("a6000_x1", 6, 300, 0.35 + 200 * 0.0003, id="disk"),
        pytest.param("a100xl_x4", 36, 400, 5.96, id="fewer vcpus are no cheaper"),
        pytest.param("a100xl_x4", 60, 1000, 5.96 + 600 * 0.0003, id="100 GB a GPU are free"),
    ],
)
def test_prices(spec: str, vcpus: int, disk_gb: int, usd: float) -> None:
    assert SPECS[spec].price(vcpus, disk_gb) == pytest.approx(usd)


@pytest.mark.parametrize(("vcpus", "ram_gb"), [(60, 420), (36, 228)])
def test_ram_under_a_cap(vcpus: int, ram_gb: int) -> None:
    assert SPECS["a100xl_x4"].ram_gb(vcpus) == ram_gb


def test_specs_and_prices_have_an_envelope_and_the_vendors_order() -> None:
    assert specs_json()["specs"]["a100xl_x4"]["vcpuOptions"] == [60, 36, 44, 52]
    prices = pricing_json({"a6000_x1": 2.0}, ["l40_x1"])["pricing"]
    assert prices["a6000_x1"] == 0.7 and "l40_x1" not in prices and prices["disk_gb"] == 0.0003


@pytest.mark.parametrize(
    ("changes", "slug", "says"),
    [
        ({"cpu_cores": 4}, "validation_error", "invalid vCPU count 4; valid options: [60 36 44 52"),
        ({"cpu_cores": "60"}, "validation_error", "invalid vCPU count 60"),
        ({"cpu_cores": True}, "validation_error", "invalid vCPU count True"),
        ({"num_gpus": 3}, "validation_error", "invalid GPU count 3; valid options: [1 2 4 8]"),
        ({"gpu_type": "a6000", "num_gpus": 4}, "validation_error", "valid options: [1]"),
        ({"gpu_type": "b200"}, "invalid_request", "invalid gpu_type 'b200'"),
        ({"disk_size_gb": 99}, "validation_error", "from 100 to 2000 GB"),
        ({"disk_size_gb": 2001}, "validation_error", "invalid disk size 2001"),
        ({"disk_size_gb": "400"}, "validation_error", "invalid disk size 400"),
        ({"template": "windows"}, "validation_error", "unknown template 'windows'"),
        ({"template": None}, "invalid_request", "missing field: template"),
        ({"public_key": "hello"}, "validation_error", "invalid public key"),
        ({"public_key": "ssh-ed25519 AAAA x\n"}, "validation_error", "single line"),
        ({"public_key": "ssh-rsa AAAA x\nssh-rsa BBBB y"}, "validation_error", "single line"),
        ({"public_key": 7}, "validation_error", "invalid public key"),
    ],
)
def test_what_a_create_must_not_hold(changes: dict[str, Any], slug: str, says: str) -> None:
    said = refused(BODY | changes)
    assert said[0] == slug and says in said[1], said


@pytest.mark.parametrize("field", ["name", "tags", "region", "env", "ephemeral_disk_gb"])
def test_fields_that_do_not_exist(field: str) -> None:
    assert refused(BODY | {field: "x"}) == ("invalid_request", f"unknown field: {field}")


def test_mode_means_nothing_and_case_neither() -> None:
    order = to_order(call(**BODY, mode="prototyping"), {})
    assert order == FOUR
    assert to_order(call(**{**BODY, "gpu_type": "A100XL"}), {}) == FOUR


def test_a_body_that_is_no_object() -> None:
    for body, malformed in (([], False), ("x", False), (None, True)):
        with pytest.raises(Refusal, match="malformed"):
            to_order(Call("POST", "/", body=body, malformed=malformed), {})


def test_a_snapshots_disk_is_the_least() -> None:
    snapshots = {"mine": 3000}
    small = BODY | {"template": "mine"}
    assert "from 3000 to 3000 GB" in refused(small, snapshots)[1]
    assert to_order(call(**small), snapshots, grows=True).disk_gb == 3000
    large = BODY | {"template": "mine", "disk_size_gb": 3000}
    assert to_order(call(**large), snapshots).disk_gb == 3000


def test_a_modify_changes_what_it_names_and_never_shrinks_the_disk() -> None:
    assert to_change(call(disk_size_gb=900), FOUR).disk_gb == 900
    assert to_change(call(cpu_cores=36), FOUR).vcpus == 36
    for body, says in (
        ({"disk_size_gb": 300}, "from 400 to 2000 GB"),
        ({"num_gpus": 8}, "invalid vCPU count 60"),
        ({}, "nothing to modify"),
        ({"mode": "production"}, "nothing to modify"),
        ({"add_ports": [80]}, "unknown field: add_ports"),
    ):
        with pytest.raises(Refusal) as caught:
            to_change(call(**body), FOUR)
        assert says in caught.value.message


def test_ports() -> None:
    assert to_ports(call(add_ports=[8000, 80], remove_ports=[443]), [443, 8080]) == [80, 8000, 8080]
    for ports in ([22], [0], [65536], ["80"], [True], "80"):
        with pytest.raises(Refusal):
            to_ports(call(add_ports=ports), [])


def test_a_made_key_is_a_pair() -> None:
    private, public = key_pair()
    assert private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert public.startswith("ssh-ed25519 ") and "\n" not in public
    assert fingerprint(public).startswith("SHA256:")
    assert fingerprint("ssh-rsa !!!") == ""


def test_every_switch_says_where_it_was_seen_and_is_told_once() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names))
    for fault in FAULTS:
        assert fault.source.startswith("thunder §") and fault.what, fault.name
