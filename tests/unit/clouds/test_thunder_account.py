"""What the Thunder emulator bills, changes and keeps, on a driven clock."""

from __future__ import annotations

import pytest
from kit.cloud import Cloud
from kit.thunder import KEY, OTHER, Api, act, billed, create, item, order, running


@pytest.mark.parametrize(
    ("seconds", "minutes"), [(1, 1), (60, 1), (61, 2), (3600, 60)], ids=lambda each: str(each)
)
def test_begun_minutes_are_paid_from_create_to_delete(
    cloud: Cloud, api: Api, seconds: float, minutes: int
) -> None:
    uuid = create(api, cpu_cores=8, disk_size_gb=300)["uuid"]
    cloud.advance(seconds)
    act(api, uuid, "delete")
    cloud.advance(900)
    usd_per_hour = 0.35 + 2 * 0.04 + 200 * 0.0003
    assert billed(cloud, uuid) == pytest.approx(usd_per_hour * minutes / 60, abs=1e-6)
    assert uuid not in cloud.bill()["running"]


def test_a_modify(cloud: Cloud, api: Api) -> None:
    uuid = create(api, disk_size_gb=100)["uuid"]
    assert act(api, uuid, "modify", {"disk_size_gb": 200}).status_code == 409
    cloud.advance(60)
    reply = act(api, "0", "modify", {"disk_size_gb": 200, "cpu_cores": 8})
    assert reply.status_code == 200
    assert reply.json()["identifier"] == "0" and reply.json()["instance_name"] == uuid
    told = item(api, uuid)
    assert (told["status"], told["storage"], told["cpuCores"]) == ("MODIFYING", 200, "8")
    cloud.advance(60)
    assert item(api, uuid)["status"] == "RUNNING"
    now = cloud.instances()[0]["usd_per_hour"]
    assert now == pytest.approx(0.35 + 0.08 + 100 * 0.0003)
    assert billed(cloud, uuid) == pytest.approx((0.35 + now) / 60, abs=1e-6)
    shrunk = act(api, uuid, "modify", {"disk_size_gb": 150})
    assert (shrunk.status_code, shrunk.json()["error"]) == (400, "validation_error")


def test_ports_are_patched(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    path = f"/v1/instances/{uuid}/ports"
    reply = api.patch(path, json={"add_ports": [8000, 8080]})
    assert reply.json() == {
        "identifier": "0",
        "instance_name": uuid,
        "http_ports": [8000, 8080],
    }
    assert api.patch(path, json={"remove_ports": [8000]}).json()["http_ports"] == [8080]
    assert item(api, uuid)["httpPorts"] == [8080]
    assert api.patch(path, json={"add_ports": [22]}).status_code == 400


def test_keys_are_added_to_an_instance(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    reply = act(api, uuid, "add_key", {"public_key": OTHER})
    assert reply.json()["success"] is True and "key" not in reply.json()
    made = act(api, uuid, "add_key")
    assert made.json()["key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert item(api, uuid)["sshPublicKeys"][:2] == [KEY, OTHER]
    assert len(item(api, uuid)["sshPublicKeys"]) == 3
    assert act(api, uuid, "add_key", {"public_key": OTHER + "\n" + KEY}).status_code == 400


def test_saved_keys_are_attached_to_nothing(api: Api) -> None:
    made = api.post("/v1/keys/add", json={"name": "laptop", "public_key": OTHER})
    assert made.status_code == 200
    key = made.json()["key"]
    assert (key["name"], key["key_type"]) == ("laptop", "ssh-ed25519")
    again = api.post("/v1/keys/add", json={"name": "again", "public_key": OTHER})
    assert (again.status_code, again.json()["error"]) == (409, "conflict")
    assert api.get("/v1/keys/list").json() == [key]
    assert item(api, create(api)["uuid"])["sshPublicKeys"] == [KEY]
    assert api.delete(f"/v1/keys/{key['id']}").status_code == 200
    assert api.delete(f"/v1/keys/{key['id']}").status_code == 404


def test_a_snapshot_is_made_restored_and_billed(cloud: Cloud, api: Api) -> None:
    uuid = create(api, disk_size_gb=200)["uuid"]
    wanted = {"instanceId": uuid, "name": "ready-to-train"}
    assert api.post("/v1/snapshots/create", json=wanted).status_code == 409
    cloud.advance(2)
    assert api.post("/v1/snapshots/create", json=wanted).status_code == 202
    assert item(api, uuid)["status"] == "SNAPPING"
    (told,) = api.get("/v1/snapshots/list").json()
    assert (told["status"], told["minimumDiskSizeGb"]) == ("CREATING", 200)
    soon = order(template="ready-to-train", disk_size_gb=200)
    assert api.post("/v1/instances/create", json=soon).status_code == 400, "not READY yet"
    assert api.post("/v1/snapshots/create", json=wanted).status_code == 409
    act(api, uuid, "delete")
    cloud.advance(3600)
    assert api.get("/v1/snapshots/list").json()[0]["status"] == "READY"
    assert billed(cloud, f"snapshot-{told['id']}") == pytest.approx(
        200 * 0.00006849 * 3602 / 3600, rel=0.02
    )
    small = api.post("/v1/instances/create", json=order(template="ready-to-train"))
    assert (small.status_code, small.json()["error"]) == (400, "validation_error")
    restored = create(api, template="ready-to-train", disk_size_gb=200)["uuid"]
    cloud.advance(0.3)
    assert item(api, restored)["status"] == "RESTORING"
    assert api.delete(f"/v1/snapshots/{told['id']}").status_code == 200
    assert api.delete(f"/v1/snapshots/{told['id']}").status_code == 404
    assert api.get("/v1/snapshots/list").json() == []
