"""The Thunder emulator's switches of requests and creates; and that every switch is tested."""

from __future__ import annotations

import uuid as uuids
from pathlib import Path

import httpx
import pytest
from clouds.thunder.faults import FAULTS
from kit.cloud import Cloud
from kit.thunder import Api, client, create, item, order, ordered, running, snapshot

LIST = "/v1/instances/list"


def test_every_switch_is_tested() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_thunder_*.py"))
    assert [fault.name for fault in FAULTS if f'"{fault.name}"' not in text] == []


def test_an_unknown_switch_or_parameter_is_refused(cloud: Cloud) -> None:
    with pytest.raises(AssertionError, match="no fault 'nonsense'"):
        cloud.fault("nonsense")
    with pytest.raises(AssertionError, match="has no colour"):
        cloud.fault("html-502", colour="red")


# Requests


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("forbidden-no-user-agent", 403, "text/html"),
        ("html-502", 502, "text/html"),
        ("rate-limited", 429, "application/json"),
        ("internal-500", 500, "application/json"),
    ],
)
def test_a_request_fails_as_often_as_it_is_told_to(
    cloud: Cloud, api: Api, fault: str, status: int, kind: str
) -> None:
    cloud.fault(fault, method="POST", path="/v1/instances/create", times=2, skip=1)
    assert api.get(LIST).status_code == 200
    create(api)
    for _ in range(2):
        reply = ordered(api)
        assert reply.status_code == status
        assert reply.headers["content-type"].startswith(kind)
    assert len(cloud.instances()) == 1
    create(api)


def test_the_edge_fails_before_the_token_is_looked_at(cloud: Cloud) -> None:
    cloud.fault("html-502", status=522, times=2)
    with client(cloud, Authorization="Bearer wrong") as api:
        assert [api.get(LIST).status_code for _ in range(3)] == [522, 522, 401]


def test_a_429_may_say_how_long(cloud: Cloud, api: Api) -> None:
    cloud.fault("rate-limited")
    assert "retry-after" not in api.get(LIST).headers
    cloud.fault("rate-limited", retry_after_s=7)
    assert api.get(LIST).headers["retry-after"] == "7"


def test_a_token_is_revoked(cloud: Cloud, api: Api) -> None:
    cloud.fault("token-revoked")
    assert [api.get(LIST).status_code for _ in range(2)] == [401, 401]
    assert api.get("/v2/specs").status_code == 200
    cloud.disarm("token-revoked")
    cloud.fault("token-told-invalid")
    assert api.get("/v1/auth/validate").json()["valid"] is False


@pytest.mark.parametrize("fault", ["create-500-but-created", "done-then-502"])
def test_an_error_that_is_none(cloud: Cloud, api: Api, fault: str) -> None:
    cloud.fault(fault)
    assert ordered(api).status_code in (500, 502)
    assert [each["mark"] for each in cloud.instances()] == ["gpujob-a"]
    assert len(cloud.bill()["running"]) == 1


@pytest.mark.parametrize("fault", ["create-cut-short", "answer-lost"])
def test_an_answer_breaks_off(cloud: Cloud, api: Api, fault: str) -> None:
    cloud.fault(fault)
    with pytest.raises(httpx.RemoteProtocolError):
        ordered(api)
    assert len(cloud.instances()) == 1


@pytest.mark.parametrize("fault", ["create-hangs-but-created", "slow-reply"])
def test_an_answer_comes_too_late(cloud: Cloud, api: Api, fault: str) -> None:
    cloud.fault(fault, for_s=1.0)
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v1/instances/create", json=order(), timeout=0.3)
    assert len(cloud.instances()) == 1, "made at once, whatever is heard of it"
    assert len(cloud.bill()["running"]) == 1


# Creates


def test_a_500_that_is_one(cloud: Cloud, api: Api) -> None:
    cloud.fault("create-500", spec="l40_x1")
    create(api)
    assert ordered(api, gpu_type="l40").status_code == 500
    assert len(cloud.instances()) == 1


def test_a_vcpu_count_of_the_specs_is_refused(cloud: Cloud, api: Api) -> None:
    cloud.fault("vcpu-rejected")
    reply = ordered(api)
    assert (reply.status_code, reply.json()["error"]) == (400, "validation_error")
    assert reply.json()["message"].startswith("validation: invalid vCPU count 6; valid options: [")
    create(api)


def test_no_capacity(cloud: Cloud, api: Api) -> None:
    cloud.fault("no-capacity", spec="a6000_x1")
    status = api.get("/v2/status").json()
    assert (status["specs"]["a6000_x1"], status["specs"]["l40_x1"]) == ("unavailable", "available")
    assert status["gpu_type"]["a6000"] == "available", "the map that must not be believed"
    assert [ordered(api).status_code for _ in range(2)] == [400, 400]
    create(api, gpu_type="l40")
    assert len(cloud.instances()) == 1


def test_capacity_is_gone_when_it_is_asked_for(cloud: Cloud, api: Api) -> None:
    cloud.fault("no-capacity", spec="a6000_x1", told=False, times=1)
    assert api.get("/v2/status").json()["specs"]["a6000_x1"] == "available"
    assert ordered(api).status_code == 400
    create(api)


def test_payment_is_required(cloud: Cloud, api: Api) -> None:
    cloud.fault("payment-required", spec="h100_x1", status=402)
    create(api)
    reply = ordered(api, gpu_type="h100", cpu_cores=4)
    assert reply.status_code == 402 and reply.json()["message"].startswith("Payment required: ")


def test_a_quota(cloud: Cloud, api: Api) -> None:
    cloud.fault("quota-exceeded", most=2)
    assert [ordered(api).status_code for _ in range(3)] == [201, 201, 403]


def test_mode_is_refused(cloud: Cloud, api: Api) -> None:
    assert ordered(api, mode="production").status_code == 201
    cloud.fault("mode-refused")
    assert ordered(api, mode="production").status_code == 400
    assert ordered(api).status_code == 201


def test_what_a_create_answers(cloud: Cloud, api: Api) -> None:
    cloud.fault("key-missing-in-reply")
    assert "key" not in create(api, public_key=None)
    assert "key" in create(api, public_key=None)
    cloud.fault("key-in-every-reply")
    assert "key" in create(api)
    cloud.fault("create-answers-200", times=1)
    assert [ordered(api).status_code for _ in range(2)] == [200, 201]
    cloud.fault("uuid-is-long")
    assert str(uuids.UUID(create(api)["uuid"]))


def test_a_disk_grows_silently(cloud: Cloud, api: Api) -> None:
    uuid = running(cloud, api, disk_size_gb=300)
    assert snapshot(api, uuid, "grown").status_code == 202
    cloud.advance(1)
    assert ordered(api, template="grown").status_code == 400
    cloud.fault("disk-grows")
    made = create(api, template="grown")
    assert item(api, made["uuid"])["storage"] == 300
    (truth,) = [each for each in cloud.instances() if each["id"] == made["uuid"]]
    assert truth["usd_per_hour"] == pytest.approx(0.35 + 200 * 0.0003)


def test_prices_change_and_go(cloud: Cloud, api: Api) -> None:
    old = create(api)["uuid"]
    cloud.fault("price-changes", spec="a6000_x1", factor=3.0)
    cloud.fault("price-missing", spec="l40_x1")
    prices = api.get("/v2/pricing").json()["pricing"]
    assert prices["a6000_x1"] == 1.05 and "l40_x1" not in prices
    new = create(api)["uuid"]
    usd = {each["id"]: each["usd_per_hour"] for each in cloud.instances()}
    assert usd == {old: pytest.approx(0.35), new: pytest.approx(1.05)}


def test_the_status_map_is_missing(cloud: Cloud, api: Api) -> None:
    cloud.fault("status-map-missing")
    assert api.get("/v2/status").json() == {}
