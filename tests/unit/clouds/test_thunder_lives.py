"""The Thunder emulator's switches of boots and of living instances, and the bill in each."""

from __future__ import annotations

import pytest
from kit.cloud import Cloud
from kit.thunder import OTHER, Api, act, billed, create, item, listed, running


def statuses(cloud: Cloud, api: Api, uuid: str, steps: int, step_s: float) -> list[str]:
    """What the list says step by step, without repetitions."""
    told: list[str] = []
    for _ in range(steps):
        word = item(api, uuid)["status"]
        told += [word] if told[-1:] != [word] else []
        cloud.advance(step_s)
    return told


def test_slow_boot(cloud: Cloud, api: Api) -> None:
    cloud.fault("slow-boot", more_s=100.0)
    uuid = create(api)["uuid"]
    cloud.advance(100)
    assert item(api, uuid)["status"] == "STARTING"
    cloud.advance(1)
    assert item(api, uuid)["status"] == "RUNNING"


def test_stuck_starting_and_it_bills(cloud: Cloud, api: Api) -> None:
    cloud.fault("stuck-starting", mark="gpujob-a")
    uuid = create(api)["uuid"]
    cloud.advance(3600)
    told = item(api, uuid)
    assert (told["status"], told["ip"]) == ("STARTING", None)
    assert billed(cloud, uuid) == pytest.approx(0.35)
    assert item(api, running(cloud, api))["status"] == "RUNNING"


def test_a_boot_passes_through_all_words(cloud: Cloud, api: Api) -> None:
    cloud.fault("boot-words", words="PENDING,QUEUED,STAGING,PROVISIONING,CREATING,STARTING")
    uuid = create(api)["uuid"]
    assert statuses(cloud, api, uuid, 30, 0.02) == [
        "PENDING",
        "QUEUED",
        "STAGING",
        "PROVISIONING",
        "CREATING",
        "STARTING",
        "RUNNING",
    ]


def test_unknown_early_and_in_passing(cloud: Cloud, api: Api) -> None:
    cloud.fault("status-unknown", for_s=0.3)
    uuid = create(api)["uuid"]
    assert statuses(cloud, api, uuid, 12, 0.1) == ["UNKNOWN", "STARTING", "RUNNING"]
    cloud.advance(2)
    cloud.fault("status-unknown-in-passing", for_s=0.5)
    assert statuses(cloud, api, uuid, 10, 0.1) == ["UNKNOWN", "RUNNING"]


def test_running_without_an_address(cloud: Cloud, api: Api) -> None:
    cloud.fault("no-address")
    uuid = create(api)["uuid"]
    cloud.advance(600)
    assert (item(api, uuid)["status"], item(api, uuid)["ip"]) == ("RUNNING", None)
    assert billed(cloud, uuid) == pytest.approx(0.35 / 6, abs=1e-6)


def test_a_container_restarts_as_often_as_it_is_told_to(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    port = item(api, uuid)["port"]
    assert "lastRestart" not in item(api, uuid)
    cloud.fault("container-restarts", after_s=60.0, times=2, reason="DiskPressure")
    told = set()
    for _ in range(5):
        cloud.advance(60)
        told.add(item(api, uuid)["lastRestart"]["timestamp"])
    assert len(told) == 2
    last = item(api, uuid)
    assert (last["status"], last["port"]) == ("RUNNING", port)
    assert (last["lastRestart"]["reason"], last["lastRestart"]["exitCode"]) == ("DiskPressure", 137)


def test_an_address_changes(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    port = item(api, uuid)["port"]
    cloud.advance(2)
    cloud.fault("address-changes", for_s=5.0, told=False)
    assert item(api, uuid)["status"] == "MIGRATING"
    cloud.advance(5)
    stale, fresh = item(api, uuid), item(api, uuid, update_ips="true")
    assert (stale["status"], stale["port"]) == ("RUNNING", port)
    assert fresh["port"] == cloud.instances()[0]["port"] != port
    assert item(api, uuid)["port"] == fresh["port"], "once refreshed it stays so"


@pytest.mark.parametrize("bills", [False, True])
def test_stopped_is_the_end(cloud: Cloud, api: Api, bills: bool) -> None:
    uuid = running(cloud, api)
    cloud.advance(2)
    cloud.fault("stopped", for_s=2.0, bills=bills)
    assert statuses(cloud, api, uuid, 5, 1.0) == ["STOPPING", "STOPPED"]
    cloud.advance(3600)
    assert item(api, uuid)["status"] == "STOPPED"
    assert (uuid in cloud.bill()["running"]) is bills
    assert act(api, uuid, "delete").status_code == 200
    assert uuid not in cloud.bill()["running"]


def test_vanishes(cloud: Cloud, api: Api) -> None:
    mine, other = running(cloud, api), running(cloud, api, public_key=OTHER)
    cloud.advance(2)
    cloud.fault("vanishes", instance=mine)
    assert [each["uuid"] for each in listed(api).values()] == [other]
    assert cloud.bill()["running"] == [other]
    assert act(api, mine, "delete").status_code == 404


def test_one_that_is_aimed_at_a_mark_spares_others(cloud: Cloud, api: Api) -> None:
    mine, other = running(cloud, api), running(cloud, api, public_key=OTHER)
    cloud.advance(2)
    cloud.fault("instance-blinks", mark="gpujob-a", for_s=5.0, times="always")
    assert [each["uuid"] for each in listed(api).values()] == [other]
    cloud.disarm()
    cloud.advance(5)
    assert {each["uuid"] for each in listed(api).values()} == {mine, other}
