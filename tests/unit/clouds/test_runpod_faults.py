"""Every fault of the RunPod emulator that needs no box behind it does what it says, on a driven
clock; and the bill is right in each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from kit.cloud import Cloud
from test_runpod_api import (
    A40,
    CAPACITY,
    H100,
    START,
    Api,
    act,
    client,
    create,
    get,
    listed,
    log,
    order,
    running,
)


@pytest.fixture(scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("runpod-faults")
    options = {"boxes": "none", "driven": START, "requests_per_minute": 100_000}
    cloud = Cloud.start(folder, "runpod", **options)
    yield cloud
    violations = cloud.violations()
    cloud.close()
    assert violations == []


@pytest.fixture
def cloud(one_cloud: Cloud) -> Cloud:
    one_cloud.disarm()
    one_cloud.balance(100.0)
    for pod in one_cloud.instances():
        one_cloud.end(pod["id"])
    return one_cloud


@pytest.fixture
def api(cloud: Cloud) -> Iterator[Api]:
    with client(cloud) as made:
        yield made


def ordered(api: Api, **changes: Any) -> httpx.Response:
    return api.post("/v2/pods", json=order(**changes))


def marks(cloud: Cloud) -> list[str]:
    return [each["mark"] for each in cloud.instances()]


def test_every_fault_says_where_it_was_seen(cloud: Cloud) -> None:
    for fault in cloud.faults()["faults"]:
        assert fault["source"].startswith("§") and fault["what"], fault["name"]


def test_an_unknown_fault_or_parameter_is_refused(cloud: Cloud) -> None:
    with pytest.raises(AssertionError, match="no fault 'nonsense'"):
        cloud.fault("nonsense")
    with pytest.raises(AssertionError, match="has no colour"):
        cloud.fault("html-502", colour="red")


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        pytest.param("html-502", 502, "<html>", id="html-502"),
        pytest.param("html-429", 429, "<html>", id="html-429"),
        pytest.param("forbidden-1010", 403, "error code: 1010", id="forbidden-1010"),
        pytest.param("internal-500", 500, '"status":500', id="internal-500"),
        pytest.param("unauthorized", 401, '"status":401', id="unauthorized"),
    ],
)
def test_a_request_fails_as_often_as_it_is_told_to(
    cloud: Cloud, api: Api, fault: str, status: int, said: str
) -> None:
    cloud.fault(fault, method="POST", path="/v2/pods", times=2, skip=1)
    assert api.get("/v2/pods").status_code == 200
    create(api)
    for _ in range(2):
        reply = ordered(api)
        assert reply.status_code == status and said in reply.text
    assert len(marks(cloud)) == 1
    create(api)


def test_another_client_uses_up_the_minute(cloud: Cloud, api: Api) -> None:
    cloud.fault("rate-limited")
    refused = api.get("/v2/pods")
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert '"minute";r=0;' in refused.headers["RateLimit"]
    cloud.advance(60)
    assert api.get("/v2/pods").status_code == 200


@pytest.mark.parametrize("fault", ["create-500-but-created", "done-then-502"])
def test_an_error_that_is_none(cloud: Cloud, api: Api, fault: str) -> None:
    cloud.fault(fault)
    assert ordered(api).status_code in (500, 502)
    assert marks(cloud) == ["gpujob-a"]
    assert len(cloud.bill()["running"]) == 1


@pytest.mark.parametrize("fault", ["create-answer-lost", "answer-lost"])
def test_an_answer_breaks_off(cloud: Cloud, api: Api, fault: str) -> None:
    cloud.fault(fault)
    with pytest.raises(httpx.RemoteProtocolError):
        ordered(api)
    assert marks(cloud) == ["gpujob-a"]


@pytest.mark.parametrize(
    ("fault", "params"),
    [("create-hangs-but-created", {"hang_s": 5}), ("slow-reply", {"delay_s": 5})],
)
def test_a_create_hangs_past_the_clients_patience(
    cloud: Cloud, api: Api, fault: str, params: dict[str, float]
) -> None:
    cloud.fault(fault, **params)
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v2/pods", json=order(), timeout=0.3)
    assert len(listed(api)) == 1


def test_a_plain_500_created_nothing(cloud: Cloud, api: Api) -> None:
    cloud.fault("create-500")
    assert ordered(api).status_code == 500
    assert marks(cloud) == []
    create(api)


def test_capacity_is_by_type_and_region_and_comes_back(cloud: Cloud, api: Api) -> None:
    cloud.fault("no-capacity", gpu=A40, region="EU-SE-1", times=2)
    for _ in range(2):
        refused = ordered(api, dataCenterIds=["EU-SE-1"])
        assert refused.status_code == 400 and CAPACITY in refused.text
    assert create(api, dataCenterIds=["EU-SE-1"])
    cloud.fault("no-capacity", gpu=H100)
    assert CAPACITY in ordered(api, gpu={"id": H100, "count": 1}).text
    cloud.fault("no-capacity", region="CA-MTL-1")
    elsewhere = running(cloud, api)
    assert get(api, elsewhere)["dataCenterId"] == "EU-SE-1"


@pytest.mark.parametrize(("fault", "status"), [("pool-forbidden", 403), ("short-balance", 402)])
def test_a_create_is_refused(cloud: Cloud, api: Api, fault: str, status: int) -> None:
    cloud.fault(fault, gpu=A40)
    assert create(api, gpu={"id": H100, "count": 1})
    assert ordered(api).status_code == status
    assert len(marks(cloud)) == 1


def test_another_place_and_another_price_than_asked_for(cloud: Cloud, api: Api) -> None:
    cloud.fault("placed-elsewhere", region="US-GA-2")
    cloud.fault("price-differs", factor=3)
    pod = running(cloud, api, dataCenterIds=["CA-MTL-1"])
    told = get(api, pod)
    assert (told["dataCenterId"], told["cost"]) == ("US-GA-2", pytest.approx(1.20))


def test_the_catalog_says_none_and_a_create_succeeds(cloud: Cloud, api: Api) -> None:
    cloud.fault("catalog-says-none", gpu=A40)
    query = {"include": "AVAILABILITY", "product": "POD"}
    told = api.get(f"/v2/catalog/gpus/{A40}", params=query).json()
    assert told["availability"] == "NONE"
    assert create(api)


def test_a_new_pod_is_invisible_for_a_while(cloud: Cloud, api: Api) -> None:
    cloud.fault("invisible-after-create", for_s=5)
    pod = create(api)["id"]
    assert listed(api) == [] and api.get(f"/v2/pods/{pod}").status_code == 404
    assert cloud.bill()["running"] == [pod]
    cloud.advance(5)
    assert listed(api) == [pod]


def test_a_delete_answers_404_and_the_pod_lives(cloud: Cloud, api: Api) -> None:
    cloud.fault("delete-404-while-propagating", for_s=5)
    pod = create(api)["id"]
    assert api.delete(f"/v2/pods/{pod}").status_code == 404
    cloud.advance(6)
    assert listed(api) == [pod]
    assert api.delete(f"/v2/pods/{pod}").status_code == 204
    assert listed(api) == []


def test_a_delete_is_ignored_once(cloud: Cloud, api: Api) -> None:
    cloud.fault("delete-ignored")
    pod = create(api)["id"]
    assert api.delete(f"/v2/pods/{pod}").status_code == 204
    assert cloud.bill()["running"] == [pod]
    assert api.delete(f"/v2/pods/{pod}").status_code == 204
    assert cloud.bill()["running"] == []


def test_a_deleted_pod_lingers_in_the_list(cloud: Cloud, api: Api) -> None:
    cloud.fault("delete-lingers", for_s=5)
    pod = running(cloud, api)
    assert api.delete(f"/v2/pods/{pod}").status_code == 204
    assert get(api, pod)["status"] == "TERMINATED"
    assert cloud.bill()["running"] == []
    cloud.advance(5)
    assert listed(api) == []


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        pytest.param("stuck-provisioning", "PROVISIONING", id="provisioning"),
        pytest.param("stuck-starting", "STARTING", id="starting"),
        pytest.param("oci-loop", "STARTING", id="oci-loop"),
    ],
)
def test_a_boot_that_never_ends(cloud: Cloud, api: Api, fault: str, status: str) -> None:
    cloud.fault(fault)
    pod = create(api)["id"]
    cloud.advance(3600)
    assert get(api, pod)["status"] == status
    assert get(api, pod)["runtime"] is None
    assert cloud.bill()["running"] == [pod]
    if fault == "oci-loop":
        lines = log(api, pod, "cuda>=12.8", source="system")
        assert "OCI runtime create failed" in lines[-1]


def test_a_slow_boot(cloud: Cloud, api: Api) -> None:
    cloud.fault("slow-boot", boot_s=300)
    pod = create(api)["id"]
    cloud.advance(299)
    assert get(api, pod)["status"] == "STARTING"
    cloud.advance(1)
    assert get(api, pod)["status"] == "RUNNING"


def test_running_without_an_endpoint_for_ever(cloud: Cloud, api: Api) -> None:
    cloud.fault("no-endpoint", mark="gpujob-b")
    a, b = running(cloud, api), running(cloud, api, name="gpujob-b")
    cloud.advance(3600)
    assert get(api, a)["ssh"]["direct"]
    assert get(api, b)["ssh"]["direct"] is None
    assert get(api, b)["runtime"]["ports"][0]["public"] is None


def test_a_stopped_pod_cannot_get_its_gpu_back(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    act(api, pod, "stop")
    cloud.fault("start-not-enough-gpus")
    refused = act(api, pod, "start")
    assert refused.status_code == 400
    assert refused.json() == {"error": "not enough free GPUs on the host machine"}
    assert cloud.bill()["running"] == []
    cloud.fault("start-500-but-started")
    assert act(api, pod, "start").status_code == 500
    assert cloud.bill()["running"] == [pod]


def test_a_pod_comes_back_without_a_gpu(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    cloud.fault("gpu-missing")
    act(api, pod, "stop")
    act(api, pod, "start")
    cloud.advance(2)
    assert "gpu" not in get(api, pod)
    assert get(api, pod)["runtime"]["gpus"] == []
    assert get(api, pod)["cost"] == pytest.approx(0.40)


@pytest.mark.parametrize(
    ("fault", "status", "bills"),
    [
        pytest.param("pod-error", "ERROR", True, id="error-bills-on"),
        pytest.param("maintenance-exit", "EXITED", False, id="maintenance"),
        pytest.param("host-vanishes", "RUNNING", True, id="host-vanishes"),
        pytest.param("container-restarts", "RUNNING", True, id="container-restarts"),
        pytest.param("port-changes-after-restart", "RUNNING", True, id="port-changes"),
        pytest.param("deleted-from-console", None, False, id="deleted"),
        pytest.param("balance-zero", None, False, id="balance-zero"),
    ],
)
def test_a_living_pod_is_struck_when_its_time_comes(
    cloud: Cloud, api: Api, fault: str, status: str | None, bills: bool
) -> None:
    cloud.fault(fault, after_s=600)
    pod = running(cloud, api)
    port = get(api, pod)["ssh"]["direct"]["port"]
    cloud.advance(590)
    assert get(api, pod)["status"] == "RUNNING"
    cloud.advance(20)
    found = {each["id"]: each["status"] for each in api.get("/v2/pods").json()["pods"]}
    assert found.get(pod) == status
    assert cloud.bill()["running"] == ([pod] if bills else [])
    if fault == "port-changes-after-restart":
        assert get(api, pod)["ssh"]["direct"]["port"] != port
    if fault in ("container-restarts", "port-changes-after-restart"):
        assert get(api, pod)["runtime"]["uptime"] < 30


def test_at_zero_a_network_volume_keeps_the_pod(cloud: Cloud, api: Api) -> None:
    volume = api.post(
        "/v2/network-volumes", json={"name": "v", "size": 10, "dataCenter": "CA-MTL-1"}
    ).json()["id"]
    kept = running(cloud, api, mounts={"network": [{"volumeId": volume, "path": "/workspace"}]})
    running(cloud, api)
    cloud.fault("balance-zero", instance=kept)
    cloud.advance(10)
    assert listed(api) == [kept]
    assert get(api, kept)["status"] == "EXITED"
    assert act(api, kept, "start").status_code == 402


def test_money_runs_out_by_itself(cloud: Cloud, api: Api) -> None:
    running(cloud, api)
    cloud.balance(0.20)
    cloud.advance(1700)
    assert len(listed(api)) == 1
    cloud.advance(200)
    assert listed(api) == []


def test_one_fault_strikes_one_pod(cloud: Cloud, api: Api) -> None:
    first, second = running(cloud, api), running(cloud, api)
    cloud.fault("maintenance-exit")
    states = sorted(get(api, pod)["status"] for pod in (first, second))
    assert states == ["EXITED", "RUNNING"]
    cloud.fault("maintenance-exit", times=2)
    assert {get(api, pod)["status"] for pod in (first, second)} == {"EXITED"}


def test_a_pod_blinks(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    cloud.fault("pod-blinks", for_s=5)
    assert listed(api) == [] and api.get(f"/v2/pods/{pod}").status_code == 404
    cloud.advance(5)
    assert get(api, pod)["status"] == "RUNNING"


def test_spot_is_warned_and_outbid(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    cloud.fault("spot-outbid", grace_s=5)
    cloud.advance(4)
    assert get(api, pod)["status"] == "RUNNING"
    cloud.advance(2)
    assert get(api, pod)["status"] == "EXITED"
    assert any("Outbid" in line for line in log(api, pod, "Outbid", source="system"))


def test_clock_skew_shifts_all_that_is_told(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    true = get(api, pod)["createdAt"]
    cloud.fault("clock-skew", skew_s=-7200)
    assert get(api, pod)["createdAt"] < true
    cloud.disarm("clock-skew")
    assert get(api, pod)["createdAt"] == true


def test_what_is_injected_can_leak_into_env(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    assert set(get(api, pod)["env"]) == {"PUBLIC_KEY"}
    cloud.fault("env-in-clear")
    assert get(api, pod)["env"]["RUNPOD_API_KEY"].startswith("rpa_pod_")


def test_a_stale_runtime_survives_the_stop(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    cloud.fault("stale-runtime")
    act(api, pod, "stop")
    told = get(api, pod)
    assert told["status"] == "EXITED" and told["runtime"] and told["ssh"]["direct"]


def test_an_endpoint_is_recycled(cloud: Cloud, api: Api) -> None:
    first = running(cloud, api)
    port = get(api, first)["ssh"]["direct"]["port"]
    api.delete(f"/v2/pods/{first}")
    cloud.fault("endpoint-recycled")
    second = running(cloud, api)
    assert get(api, second)["ssh"]["direct"]["port"] == port


def test_the_console_deletes(cloud: Cloud, api: Api) -> None:
    pod = running(cloud, api)
    cloud.end(pod)
    assert listed(api) == [] and cloud.bill()["running"] == []
