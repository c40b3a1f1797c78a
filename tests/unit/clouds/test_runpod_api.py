"""The RunPod emulator's API and money, on a driven clock and without boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kit.cloud import Cloud

A40, H100 = "NVIDIA A40", "NVIDIA H100 80GB HBM3"
START = "2026-11-20T10:00:00+00:00"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me"
CAPACITY = "There are no longer any instances available"
Api = httpx.Client
Reset = Callable[[], None]


@pytest.fixture(scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("runpod")
    options = {"boxes": "none", "driven": START, "requests_per_minute": 100_000}
    cloud = Cloud.start(folder, "runpod", **options)
    yield cloud
    violations = cloud.violations()
    cloud.close()
    assert violations == []


@pytest.fixture
def cloud(one_cloud: Cloud) -> Cloud:
    """As new: no fault, no pod, money."""
    one_cloud.disarm()
    one_cloud.balance(100.0)
    for pod in one_cloud.instances():
        one_cloud.end(pod["id"])
    return one_cloud


@pytest.fixture
def api(cloud: Cloud) -> Iterator[Api]:
    with client(cloud) as made:
        yield made


def client(cloud: Cloud, key: str = "") -> Api:
    headers = {"Authorization": f"Bearer {key or cloud.key}", "User-Agent": "test/1"}
    return httpx.Client(base_url=cloud.url, headers=headers, timeout=20.0)


def order(**changes: Any) -> dict[str, Any]:
    body = {
        "name": "gpujob-a",
        "image": "runpod/pytorch:1.0.2",
        "gpu": {"id": A40, "count": 1},
        "disk": 20,
        "ports": ["22/tcp", "8888/http"],
        "env": {"PUBLIC_KEY": KEY},
    }
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def create(api: Api, **changes: Any) -> dict[str, Any]:
    reply = api.post("/v2/pods", json=order(**changes))
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def running(cloud: Cloud, api: Api, **changes: Any) -> str:
    pod = create(api, **changes)
    cloud.advance(2)
    assert get(api, pod["id"])["status"] == "RUNNING"
    return str(pod["id"])


def get(api: Api, pod: str) -> dict[str, Any]:
    reply = api.get(f"/v2/pods/{pod}")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def act(api: Api, pod: str, action: str) -> httpx.Response:
    return api.post(f"/v2/pods/{pod}/action", json={"action": action})


def listed(api: Api) -> list[str]:
    return [pod["id"] for pod in api.get("/v2/pods").json()["pods"]]


def log(api: Api, pod: str, last: str, **query: Any) -> list[str]:
    """The `data:` lines up to the first that holds `last`; the stream itself never ends."""
    lines: list[str] = []
    with api.stream("GET", f"/v2/pods/{pod}/logs", params=query) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data:"):
                lines.append(line)
            if lines and last in lines[-1]:
                return lines
    return lines


def test_a_pod_goes_its_way_as_time_passes(cloud: Cloud, api: Api) -> None:
    pod = create(api)
    assert (pod["status"], pod["ssh"], pod["startedAt"]) == (
        "PROVISIONING",
        {"proxy": None, "direct": None},
        None,
    )
    assert pod["dataCenterId"] is None
    cloud.advance(0.2)
    starting = get(api, pod["id"])
    assert starting["status"] == "STARTING"
    assert starting["ssh"]["proxy"]["host"] == "ssh.runpod.io"
    assert starting["runtime"] is None
    cloud.advance(0.35)
    up = get(api, pod["id"])
    assert (up["status"], up["ssh"]["direct"]) == ("RUNNING", None)
    assert up["startedAt"] is not None
    cloud.advance(0.3)
    direct = get(api, pod["id"])["ssh"]["direct"]
    assert (direct["host"], direct["username"]) == ("127.0.0.1", "root")
    http = get(api, pod["id"])["runtime"]["ports"][1]
    assert (http["type"], http["public"], http["ip"]) == ("http", None, "100.65.0.101")


def test_stop_start_restart_and_end(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    first = get(api, pod)["ssh"]["direct"]["port"]
    stopped = act(api, pod, "stop").json()
    assert (stopped["status"], stopped["cost"], stopped["runtime"]) == ("EXITED", 0.0, None)
    assert stopped["cudaVersion"] == "12.8"
    assert act(api, pod, "restart").status_code == 409
    assert act(api, pod, "start").json()["status"] == "STARTING"
    cloud.advance(2)
    second = get(api, pod)["ssh"]["direct"]["port"]
    assert act(api, pod, "restart").status_code == 200
    cloud.advance(2)
    third = get(api, pod)["ssh"]["direct"]["port"]
    assert len({first, second, third}) == 3
    assert api.delete(f"/v2/pods/{pod}").status_code == 204
    assert listed(api) == []
    assert api.get(f"/v2/pods/{pod}").status_code == 404
    assert api.delete(f"/v2/pods/{pod}").status_code == 404


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        pytest.param({"bogus": 1}, 422, "additional properties 'bogus'", id="unknown-field"),
        pytest.param({"interruptible": True}, 422, "interruptible", id="spot-is-gone"),
        pytest.param({"disk": "20"}, 422, "$.disk: got string", id="type"),
        pytest.param({"disk": 1.5}, 422, "$.disk", id="fraction"),
        pytest.param({"name": None}, 422, "missing property 'name'", id="no-name"),
        pytest.param({"image": None}, 422, "missing property 'image'", id="no-image"),
        pytest.param({"gpu": {"count": 1}}, 422, "missing property 'id'", id="no-gpu-id"),
        pytest.param({"mounts": {"persistent": {"size": 20}}}, 422, "path", id="half-mount"),
        pytest.param({"env": {"A": 1}}, 422, "$.env.A", id="env-number"),
        pytest.param({"gpu": None}, 400, "exactly one", id="neither-gpu-nor-cpu"),
        pytest.param({"cpu": {"id": "cpu5c", "vcpuCount": 2}}, 400, "exactly one", id="both"),
        pytest.param({"gpu": {"id": "RTX 9"}}, 400, "not found", id="unknown-gpu"),
        pytest.param({"gpu": {"id": A40}}, 400, CAPACITY, id="no-count"),
        pytest.param({"disk": None}, 400, "either provide a template", id="no-disk"),
        pytest.param({"gpu": {"id": A40, "count": 9}}, 400, CAPACITY, id="too-many"),
        pytest.param({"dataCenterIds": ["EU-RO-1"]}, 400, CAPACITY, id="not-there"),
        pytest.param({"dataCenterIds": ["eu-ro-1"]}, 400, "not found", id="lower-case-center"),
        pytest.param({"registry": "r1"}, 400, "registry auth r1 not found", id="registry"),
        pytest.param({"templateId": "t1"}, 404, "not found", id="template"),
        pytest.param(
            {"mounts": {"network": [{"volumeId": "v", "path": "/w"}]}},
            400,
            "network volume v not found",
            id="volume",
        ),
        pytest.param(
            {
                "mounts": {
                    "persistent": {"size": 20, "path": "/w"},
                    "network": [{"volumeId": "v", "path": "/w"}],
                }
            },
            400,
            "mutually exclusive",
            id="both-mounts",
        ),
        pytest.param(
            {"gpu": {"id": A40, "count": 1, "minCudaVersion": "13.1"}}, 400, CAPACITY, id="cuda"
        ),
    ],
)
def test_a_wrong_order_is_refused(
    cloud: Cloud, api: Api, changes: dict[str, Any], status: int, said: str
) -> None:
    reply = api.post("/v2/pods", json=order(**changes))
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert said in reply.text
    assert cloud.instances() == []
    assert ("errors" in reply.json()) == (status == 422)


def test_a_volume_pins_the_pod_to_its_data_center(cloud: Cloud, api: Api) -> None:
    volume = api.post(
        "/v2/network-volumes", json={"name": "v", "size": 100, "dataCenter": "EU-SE-1"}
    ).json()
    mounts = {"network": [{"volumeId": volume["id"], "path": "/workspace"}]}
    refused = api.post("/v2/pods", json=order(mounts=mounts, dataCenterIds=["US-KS-2"]))
    assert refused.status_code == 400 and "EU-SE-1" in refused.text
    pod = running(cloud, api, mounts=mounts)
    assert get(api, pod)["dataCenterId"] == "EU-SE-1"
    shrunk = api.patch(f"/v2/network-volumes/{volume['id']}", json={"size": 50})
    assert shrunk.status_code == 400


def test_a_cpu_pod_has_no_gpu(cloud: Cloud, api: Api) -> None:
    pod = create(api, gpu=None, cpu={"id": "cpu5c", "vcpuCount": 4})
    assert "gpu" not in pod and pod["cpu"]["vcpuCount"] == 4


def test_what_is_rented_is_not_free(cloud: Cloud, api: Api) -> None:
    place = {"gpu": {"id": A40, "count": 2}, "dataCenterIds": ["US-KS-2"]}
    create(api, **place)
    assert CAPACITY in api.post("/v2/pods", json=order(**place)).text
    query = {"include": "GPU_AVAILABILITY"}
    center = api.get("/v2/catalog/datacenters/US-KS-2", params=query).json()
    assert next(g for g in center["gpuAvailability"] if g["id"] == A40)["availability"] == "NONE"


def test_the_catalog_tells_stock_by_data_center(cloud: Cloud, api: Api) -> None:
    query = {"include": "AVAILABILITY", "product": "POD", "count": 4}
    gpus = {g["id"]: g for g in api.get("/v2/catalog/gpus", params=query).json()["gpus"]}
    stock = {d["id"]: d["availability"] for d in gpus[A40]["dataCenters"]}
    assert stock["US-KS-2"] == "NONE" and stock["CA-MTL-1"] != "NONE"
    assert gpus[A40]["price"]["secure"] == 0.40
    one = api.get(f"/v2/catalog/gpus/{A40}").json()
    assert "availability" not in one
    assert api.get("/v2/catalog/gpus", params={"include": "AVAILABILITY"}).status_code == 400
    assert api.get("/v2/catalog/gpus", params={"product": "POD"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"User-Agent": "Python-urllib/3.11"}, 403, id="urllib"),
        pytest.param({"User-Agent": ""}, 403, id="no-agent"),
        pytest.param({"Authorization": "Bearer wrong"}, 401, id="wrong-key"),
        pytest.param({"Authorization": ""}, 401, id="no-key"),
    ],
)
def test_the_edge_and_the_key(cloud: Cloud, api: Api, headers: dict[str, str], status: int) -> None:
    reply = api.get("/v2/pods", headers=headers)
    assert reply.status_code == status
    assert ("1010" in reply.text) == (status == 403)
    assert "RateLimit" not in reply.headers or status == 403


def test_a_pods_own_key_may_stop_it_and_nothing_else(cloud: Cloud, api: Api) -> None:
    pod, other = running(cloud, api), running(cloud, api)
    key = next(each["pod_key"] for each in cloud.instances() if each["id"] == pod)
    with client(cloud, key) as own:
        assert own.get("/v2/pods").status_code == 403
        assert own.delete(f"/v2/pods/{pod}").status_code == 403
        assert act(own, pod, "terminate").status_code == 403
        assert act(own, other, "stop").status_code == 403
        cloud.fault("pod-key-403")
        assert act(own, pod, "stop").status_code == 403
        cloud.disarm()
        assert act(own, pod, "stop").json()["status"] == "EXITED"
    assert cloud.audit()[-1]["who"] == f"pod:{pod}"
    assert key not in str(cloud.audit())


def test_unknown_paths_methods_and_retired_apis(cloud: Cloud, api: Api) -> None:
    assert api.get("/v2/nothing").status_code == 404
    wrong = api.put("/v2/pods", json={})
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "GET, POST")
    assert api.get("/v1/pods").status_code == 410
    assert api.post("/graphql", json={"query": "{ gpuTypes { id } }"}).status_code == 410
    query = "query { myself { clientBalance currentSpendPerHr } }"
    told = api.post("/graphql", json={"query": query}).json()["data"]["myself"]
    assert told == {"clientBalance": 100.0, "currentSpendPerHr": 0.0}


def test_the_bill_is_by_the_second_and_stops_with_the_pod(cloud: Cloud, api: Api) -> None:
    before = cloud.bill()["total_usd"]
    pod = running(cloud, api, gpu={"id": A40, "count": 2})
    cloud.advance(3598)
    act(api, pod, "stop")
    cloud.advance(3600)
    assert cloud.bill()["total_usd"] - before == pytest.approx(0.80)
    assert cloud.bill()["running"] == []
    act(api, pod, "start")
    cloud.advance(900)
    api.delete(f"/v2/pods/{pod}")
    cloud.advance(100)
    assert cloud.bill()["total_usd"] - before == pytest.approx(1.00)
    assert cloud.bill()["balance_usd"] == pytest.approx(99.0)


def test_billing_lags_by_an_hour(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    query = {"podId": pod, "bucketSize": "hour", "lastN": 8}
    cloud.advance(3000)
    assert api.get("/v2/billing/pods", params=query).json()["records"] == []
    cloud.advance(3600 + 598)
    told = api.get("/v2/billing/pods", params=query).json()
    total = told["metadata"]["totals"]["totalAmount"]
    assert total == pytest.approx(0.4, abs=0.001)  # a begun second in each bucket
    assert told["metadata"]["uniquePodCount"] == 1


def test_too_little_money_rents_nothing(cloud: Cloud, api: Api) -> None:
    cloud.balance(0.39)
    reply = api.post("/v2/pods", json=order())
    assert reply.status_code == 402 and cloud.instances() == []


def test_ssh_keys_are_replaced_and_read_by_start_ssh(cloud: Cloud, api: Api) -> None:
    assert api.put("/v2/account/ssh-keys", json={"keys": ["junk"]}).status_code == 422
    assert api.put("/v2/account/ssh-keys", json={"keys": [KEY]}).json() == {"keys": [KEY]}
    assert api.put("/v2/account/ssh-keys", json={"keys": []}).json() == {"keys": []}


def test_pages_lead_through_the_whole_list(cloud: Cloud, api: Api) -> None:
    pods = [create(api)["id"] for _ in range(3)]
    assert "pagination" not in api.get("/v2/pods").json()
    cloud.fault("list-pages", page_size=2)
    found, cursor = [], None
    for _ in range(2):
        query = {"cursor": cursor} if cursor else {}
        page = api.get("/v2/pods", params=query).json()
        found += [pod["id"] for pod in page["pods"]]
        cursor = page["pagination"]["nextCursor"]
    assert cursor is None and sorted(found) == sorted(pods)
    assert api.get("/v2/pods", params={"cursor": "junk"}).status_code == 422


def test_the_log_tells_the_host_keys(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    lines = log(api, pod, "is ready", source="container")
    assert any("SHA256:" in line and "(ED25519)" in line for line in lines)
    assert all('"container"' in line for line in lines)
    cloud.fault("no-host-key-in-log")
    act(api, pod, "restart")
    cloud.advance(2)
    again = log(api, pod, "is ready", source="container", tail=3)
    assert not any("SHA256:" in line for line in again)


def test_a_custom_command_or_no_key_means_no_ssh_server(cloud: Cloud, api: Api) -> None:
    """RUNNING with an endpoint all the same, so nothing but a connect can tell."""
    pod = running(cloud, api, args="python train.py")
    assert get(api, pod)["ssh"]["direct"]
    assert not any("SHA256" in line for line in log(api, pod, "train.py", source="container"))


def test_a_locked_pod_is_not_stopped(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    assert api.patch(f"/v2/pods/{pod}", json={"locked": True}).json()["locked"] is True
    assert act(api, pod, "stop").status_code == 409
    assert act(api, pod, "terminate").status_code == 204


def test_a_template_gives_what_the_body_lacks(cloud: Cloud, api: Api) -> None:
    made = api.post(
        "/v2/templates", json={"name": "t", "image": "i:1", "disk": 30, "env": {"A": "1"}}
    ).json()
    pod = create(api, image=None, disk=None, templateId=made["id"])
    assert (pod["image"], pod["disk"], pod["template"]) == ("i:1", 30, None)
    assert pod["env"] == {"A": "1", "PUBLIC_KEY": KEY}


def test_the_rate_is_counted_for_real(tmp_path: Path) -> None:
    options = {"boxes": "none", "driven": START, "requests_per_minute": 3}
    cloud = Cloud.start(tmp_path, "runpod", **options)
    try:
        with client(cloud) as api:
            first = api.get("/v2/pods")
            assert first.headers["RateLimit"].startswith('"minute";r=2;t=60, "hour";r=2999;')
            assert first.headers["RateLimit-Policy"].startswith('"minute";q=3;w=60, "hour";')
            cloud.advance(20)
            codes = [api.get("/v2/pods").status_code for _ in range(3)]
            assert codes == [200, 200, 429]
            refused = api.get("/v2/pods")
            assert refused.headers["Retry-After"] == "40"
            assert "minute window" in refused.json()["detail"]
            cloud.advance(40)
            assert api.get("/v2/pods").status_code == 200
    finally:
        cloud.close()
