"""The Thunder emulator's switches of lists, changes and snapshots."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from kit.cloud import Cloud
from kit.thunder import (
    KEY,
    OTHER,
    Api,
    act,
    billed,
    create,
    item,
    listed,
    ordered,
    running,
    snapshot,
)

LIST = "/v1/instances/list"


def snapshots(api: Api) -> dict[str, str]:
    return {each["name"]: each["status"] for each in api.get("/v1/snapshots/list").json()}


def test_a_new_instance_is_not_listed_yet(cloud: Cloud, api: Api) -> None:
    first = running(cloud, api)
    cloud.advance(60)
    cloud.fault("list-empty-after-create", for_s=30.0)
    second = create(api)["uuid"]
    assert [each["uuid"] for each in listed(api).values()] == [first]
    cloud.advance(30)
    assert {each["uuid"] for each in listed(api).values()} == {first, second}
    assert billed(cloud, second) > 0


def test_one_list_in_mid_life_is_empty(cloud: Cloud, api: Api) -> None:
    cloud.fault("list-empty-once", after_s=60.0)
    running(cloud, api)
    assert len(listed(api)) == 1
    cloud.advance(60)
    assert [len(listed(api)) for _ in range(2)] == [0, 1]


def test_a_list_breaks_off(cloud: Cloud, api: Api) -> None:
    cloud.fault("list-cut-short")
    with pytest.raises(httpx.RemoteProtocolError):
        api.get(LIST)
    assert listed(api) == {}


def test_indices_are_given_out_anew(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    cloud.fault("index-moves")
    assert [list(listed(api)) for _ in range(3)] == [["1"], ["0"], ["1"]]
    assert act(api, "0", "delete").status_code == 404
    assert act(api, uuid, "delete").status_code == 200


def test_an_index_moves_between_the_list_and_the_delete(cloud: Cloud, api: Api) -> None:
    """The uuid is what hits; an index that was right a moment ago ends somebody else's."""
    mine, other = running(cloud, api), running(cloud, api, public_key=OTHER)
    told = {each["uuid"]: index for index, each in listed(api).items()}
    cloud.fault("index-moves-before-use")
    assert act(api, told[other], "delete").status_code == 200
    cloud.advance(1)
    assert [each["id"] for each in cloud.instances()] == [other], "mine is gone instead"
    cloud.fault("index-moves-before-use")
    assert act(api, other, "delete").status_code == 200
    cloud.advance(1)
    assert cloud.instances() == [] and mine != other


def test_a_uuid_is_no_index(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    cloud.fault("uuid-refused")
    assert act(api, uuid, "delete").status_code == 404
    assert act(api, "0", "delete").status_code == 200


@pytest.mark.parametrize(
    ("fault", "name", "value"),
    [
        ("item-types", "status", "running"),
        ("item-types", "cpuCores", 6),
        ("item-types", "numGpus", 1),
        ("item-types", "memory", "48 GB"),
        ("item-sparse", "httpPorts", None),
        ("item-sparse", "mode", None),
    ],
)
def test_an_item_is_told_otherwise(
    cloud: Cloud, api: Api, fault: str, name: str, value: Any
) -> None:
    uuid = running(cloud, api)
    plain = item(api, uuid)
    cloud.fault(fault)
    told = item(api, uuid)
    assert told.get(name) == value != plain[name]
    assert told["sshPublicKeys"] == [KEY]


def test_an_ip_is_blank(cloud: Cloud, api: Api) -> None:
    uuid = create(api)["uuid"]
    cloud.fault("item-types")
    assert item(api, uuid)["ip"] == ""
    cloud.advance(2)
    assert item(api, uuid)["ip"] == "127.0.0.1"


def test_a_list_is_stale_after_a_modify(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    cloud.fault("list-stale-after-modify", for_s=10.0)
    assert act(api, uuid, "modify", {"disk_size_gb": 200}).status_code == 200
    assert (item(api, uuid)["status"], item(api, uuid)["storage"]) == ("RUNNING", 100)
    cloud.advance(10)
    assert (item(api, uuid)["status"], item(api, uuid)["storage"]) == ("MODIFYING", 200)
    cloud.advance(1)
    assert item(api, uuid)["status"] == "RUNNING"


@pytest.mark.parametrize("slug", ["temporarily_disabled", "unsupported_instance_version"])
def test_a_modify_is_refused(cloud: Cloud, api: Api, slug: str) -> None:
    uuid = running(cloud, api)
    cloud.fault("modify-refused", error=slug)
    reply = act(api, uuid, "modify", {"disk_size_gb": 200})
    assert (reply.status_code, reply.json()["error"]) == (400, slug)
    assert item(api, uuid)["storage"] == 100


def test_a_delete_takes_its_time(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    cloud.fault("delete-slow", for_s=120.0)
    act(api, uuid, "delete")
    assert cloud.bill()["running"] == [], "billing stops at once"
    cloud.advance(119)
    assert item(api, uuid)["status"] == "DELETING"
    assert act(api, uuid, "delete").status_code == 404
    cloud.advance(1)
    assert listed(api) == {}


def test_a_delete_fails(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    cloud.fault("delete-500")
    assert act(api, uuid, "delete").status_code == 500
    assert item(api, uuid)["status"] == "RUNNING" and cloud.bill()["running"] == [uuid]
    assert act(api, uuid, "delete").status_code == 200


def test_snapshots_fail_or_are_made_and_not_told(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    cloud.fault("snapshot-fails", status="ERROR")
    snapshot(api, uuid, "failed")
    cloud.advance(1)
    assert ordered(api, template="failed").status_code == 400
    cloud.fault("snapshot-500-but-created")
    assert snapshot(api, uuid, "orphan").status_code == 500
    assert snapshots(api) == {"failed": "ERROR", "orphan": "CREATING"}
    cloud.advance(1)
    assert snapshots(api)["orphan"] == "READY"
    assert any(each.startswith("snapshot-") for each in cloud.bill()["running"]), "and it bills"
