"""The Thunder emulator's API, on a driven clock and without boxes."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from kit.cloud import Cloud
from kit.thunder import KEY, START, Api, act, client, create, item, listed, order, running

PUBLIC = ("/v2/specs", "/v2/pricing", "/v2/status", "/v1/thunder-templates", "/v1/specs")


def test_an_account_without_instances_lists_an_empty_object(api: Api) -> None:
    assert api.get("/v1/instances/list").text == "{}"


def test_a_life(cloud: Cloud, api: Api) -> None:
    made = create(api)
    assert made == {"identifier": 0, "uuid": made["uuid"]}, "no key, for one was sent"
    first = item(api, made["uuid"])
    assert (first["status"], first["ip"], first["port"]) == ("PENDING", None, 0)
    cloud.advance(0.4)
    assert item(api, made["uuid"])["status"] == "STARTING"
    cloud.advance(0.2)
    assert (item(api, made["uuid"])["status"], item(api, made["uuid"])["ip"]) == ("RUNNING", None)
    cloud.advance(0.3)
    ready = item(api, made["uuid"])
    assert (ready["ip"], ready["port"]) == ("127.0.0.1", cloud.instances()[0]["port"])
    for name, value in {
        "cpuCores": "6",
        "numGpus": "1",
        "memory": "48",
        "storage": 100,
        "gpuType": "a6000",
        "createdAt": cloud.instances()[0]["created_at"].replace("+00:00", "Z")[:19] + "Z",
        "sshPublicKeys": [KEY],
        "name": made["uuid"],
    }.items():
        assert ready[name] == value, name
    assert "id" not in ready and "lastRestart" not in ready
    deleted = act(api, made["uuid"], "delete")
    assert (deleted.status_code, deleted.json()) == (200, {"message": "Success"})
    assert item(api, made["uuid"])["status"] == "DELETING"
    assert act(api, made["uuid"], "delete").status_code == 404
    cloud.advance(1)
    assert listed(api) == {} and cloud.instances() == []


@pytest.mark.parametrize("agent", ["", "Python-urllib/3.11"], ids=["none", "urllib"])
def test_the_edge_comes_before_the_token(cloud: Cloud, agent: str) -> None:
    for key in (cloud.key, "wrong"):
        with client(cloud, Authorization=f"Bearer {key}") as api:
            api.headers["User-Agent"] = agent
            for path in ("/v1/instances/list", "/v2/specs"):
                reply = api.get(path)
                assert reply.status_code == 403
                assert reply.headers["content-type"].startswith("text/html")


def test_the_edge_refuses_a_real_urllib(cloud: Cloud) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{cloud.url}/v2/specs", timeout=10)
    assert caught.value.code == 403
    caught.value.close()


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Basic x"])
def test_no_token_and_a_bad_one_are_answered_alike(cloud: Cloud, token: str) -> None:
    with client(cloud, Authorization=token) as api:
        reply = api.get("/v1/instances/list")
        assert (reply.status_code, reply.json()) == (
            401,
            {"code": 401, "error": "unauthorized", "message": "Unauthorized"},
        )
        assert [api.get(path).status_code for path in PUBLIC] == [200] * len(PUBLIC)


def test_the_token_can_be_asked_about(api: Api) -> None:
    assert api.get("/v1/auth/validate").json()["valid"] is True


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/instances/0", 404),
        ("GET", "/instances/list", 404),
        ("POST", "/v1/instances/0/up", 404),
        ("POST", "/v1/instances/0/down", 404),
        ("GET", "/v1/instances/create", 405),
        ("PUT", "/v1/instances/0/modify", 405),
        ("POST", "/v1/instances/0/ports", 405),
    ],
)
def test_what_is_not_there(api: Api, method: str, path: str, status: int) -> None:
    reply = api.request(method, path)
    assert reply.status_code == status and reply.json()["code"] == status


def test_a_refused_create_costs_nothing(cloud: Cloud, api: Api) -> None:
    before = len(cloud.bill()["intervals"])
    for body, slug, says in (
        (order(cpu_cores=4), "validation_error", "invalid vCPU count 4; valid options: [6 8]"),
        (order(disk_size_gb=50), "validation_error", "invalid disk size"),
        (order(name="mine"), "invalid_request", "unknown field: name"),
        (order(public_key=KEY + "\n"), "validation_error", "single line"),
    ):
        reply = api.post("/v1/instances/create", json=body)
        told = reply.json()
        assert (reply.status_code, told["code"], told["error"]) == (400, 400, slug)
        assert says in told["message"]
    reply = api.post("/v1/instances/create", content=b"{")
    assert (reply.status_code, reply.json()["message"]) == (400, "The request is malformed")
    assert cloud.instances() == [] and len(cloud.bill()["intervals"]) == before


def test_a_key_is_made_only_when_none_is_sent(api: Api, tmp_path: Path) -> None:
    made = create(api, public_key=None)
    path = tmp_path / "key"
    path.write_text(made["key"])
    path.chmod(0o600)
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True
    ).stdout.split()[:2]
    assert [key.split()[:2] for key in item(api, made["uuid"])["sshPublicKeys"]] == [public]


def test_an_index_is_used_again_and_a_stale_one_hits_another(cloud: Cloud, api: Api) -> None:
    first, second = running(cloud, api), running(cloud, api)
    assert {index: each["uuid"] for index, each in listed(api).items()} == {"0": first, "1": second}
    assert act(api, "0", "delete").status_code == 200
    cloud.advance(1)
    third = create(api)
    assert third["identifier"] == 0
    assert act(api, "0", "delete").status_code == 200
    cloud.advance(1)
    assert [each["id"] for each in cloud.instances()] == [second]


def test_unknown_instances(api: Api) -> None:
    for what in ("delete", "modify", "add_key"):
        reply = act(api, "999999", what, {})
        assert (reply.status_code, reply.json()["error"]) == (404, "not_found")
    assert api.patch("/v1/instances/999999/ports", json={}).status_code == 404


def test_a_plain_rate_limit(tmp_path: Path) -> None:
    cloud = Cloud.start(tmp_path, "thunder", boxes="none", driven=START, requests_per_minute=3)
    try:
        with client(cloud) as api:
            said = [api.get("/v1/instances/list").status_code for _ in range(4)]
            assert said == [200, 200, 200, 429]
            refused = api.get("/v1/instances/list").json()
            assert refused == {
                "code": 429,
                "error": "rate_limit_exceeded",
                "message": "Too many requests. Please try again later.",
            }
            cloud.advance(60)
            assert api.get("/v1/instances/list").status_code == 200
    finally:
        cloud.close()


def test_no_secret_is_kept_in_the_audit(cloud: Cloud, api: Api) -> None:
    private = create(api, public_key=None)["key"]
    text = json.dumps(cloud.audit())
    assert cloud.key not in text and private.splitlines()[1] not in text


def test_a_person_ends_an_instance_in_the_console(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api)
    cloud.end(uuid)
    assert listed(api) == {} and uuid not in cloud.bill()["running"]
