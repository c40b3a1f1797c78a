"""RunPod's answers, right, cut, strange and hostile, as the port tells them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from kit.clock import ManualClock

from orchestrator.adapters.http import Api
from orchestrator.adapters.rate import Rate
from orchestrator.adapters.runpod import RunPodProvider
from orchestrator.core.offer import Need, Offer, Rental
from orchestrator.errors import LostAnswer, NoCapacity, Refused, Transient
from orchestrator.ports import CreateRequest, ProviderInstance

MARK = "gpujob-0a1b2c-j7k2-1"
KEY = "ssh-ed25519 AAAAC3Nza gpujob"
A40 = {
    "id": "NVIDIA A40",
    "secure": True,
    "community": True,
    "price": {"secure": 0.4, "community": 0.3},
    "maxCount": {"secure": 8, "community": 2},
    "availability": "HIGH",
    "dataCenters": [
        {"id": "EU-RO-1", "availability": "LOW"},
        {"id": "US-KS-2", "availability": "NONE"},
    ],
}
POD = {
    "id": "8y5rumuyb50m78",
    "name": MARK,
    "status": "RUNNING",
    "env": {"PUBLIC_KEY": KEY, "GPUJOB_MARK": MARK},
    "ssh": {
        "proxy": {"host": "ssh.runpod.io", "port": 22, "username": "8y5-64411eb2"},
        "direct": {"host": "194.68.245.10", "port": 17445, "username": "root"},
    },
    "cost": 0.49,
    "createdAt": "2026-10-01T12:00:00Z",
    "startedAt": "2026-10-01T12:01:00Z",
}


class Vendor:
    """Answers by method and path, and remembers what it was asked. A list of answers is given one
    by one."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = dict(answers)
        self.asked: list[httpx.Request] = []
        self.provider = RunPodProvider(
            Api(
                "https://cloud.test",
                token=lambda: "rpa_SECRET",
                user_agent="gpujob/0",
                rate=Rate(ManualClock(), per_minute=500),
                transport=httpx.MockTransport(self._answer),
            ),
            ManualClock(),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers[f"{request.method} {request.url.path}"]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def raw(text: str) -> httpx.Response:
    return httpx.Response(200, content=text)


def problem(status: int, detail: str) -> httpx.Response:
    return httpx.Response(status, json={"title": "t", "status": status, "detail": detail})


# Offers


def offers(need: Need, *entries: Any, **answers: Any) -> Sequence[Offer]:
    return Vendor({"GET /v2/catalog/gpus": {"gpus": list(entries)}, **answers}).provider.offers(
        need
    )


def need(gpu: str = "A40", count: int = 1, **more: Any) -> Need:
    return Need(**{"gpus": ((gpu, count),), "disk_gb": 50, "cloud": "secure", **more})


def test_an_offer_for_each_data_centre_with_its_stock() -> None:
    found = {each.region: each for each in offers(need(count=2), A40)}
    assert {region: each.stock for region, each in found.items()} == {
        "EU-RO-1": "LOW",
        "US-KS-2": "NONE",
    }
    offer = found["EU-RO-1"]
    assert (offer.gpu, offer.count, offer.usd_per_hour) == ("A40", 2, 0.8)
    assert (offer.provider, offer.cloud, offer.disk_gb) == ("runpod", "secure", 50)
    assert offer.seen_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert len({each.id for each in found.values()}) == 2


@pytest.mark.parametrize(
    ("cloud", "prices"),
    [("secure", {0.8}), ("community", {0.6}), ("", {0.8, 0.6})],
    ids=["secure", "community", "both"],
)
def test_the_price_is_per_gpu_and_differs_by_cloud(cloud: str, prices: set[float]) -> None:
    assert {each.usd_per_hour for each in offers(need(count=2, cloud=cloud), A40)} == prices


@pytest.mark.parametrize(
    ("asked", "changed", "count"),
    [
        (need(), {}, 2),
        (need(region="eu-ro-1"), {}, 1),
        (need(region="EU-SE-1"), {}, 0),
        (need(gpu="H100"), {}, 0),
        (need(gpu="*"), {}, 2),
        (need(gpu="cpu"), {}, 0),
        (need(count=16), {}, 0),
        (need(cloud="community", count=4), {}, 0),
        (need(), {"secure": False}, 0),
        (need(), {"dataCenters": []}, 1),
        (need(), {"dataCenters": None}, 1),
        (need(region="EU-RO-1"), {"dataCenters": []}, 0),
        (need(), {"price": {"secure": 0}}, 0),
        (need(), {"price": {"secure": -1}}, 0),
        (need(), {"price": {"secure": None}}, 0),
        (need(), {"price": {"community": 0.3}}, 0),
        (need(), {"price": 4}, 0),
        (need(), {"maxCount": None}, 0),
        (need(), {"id": "NVIDIA A40 MIG 1g.10gb"}, 0),
        (need(gpu="*"), {"id": "NVIDIA A40 MIG 1g.10gb"}, 0),
        (need(), {"dataCenters": "EU"}, 0),
        (need(), {"new": {"field": 1}}, 2),
    ],
)
def test_which_offers_fit(asked: Need, changed: dict[str, Any], count: int) -> None:
    assert len(offers(asked, {**A40, **changed})) == count


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-Infinity"])
def test_a_price_that_is_no_number_is_no_offer(price: str) -> None:
    body = json.dumps({"gpus": [{**A40, "price": {"secure": "PRICE"}}]})
    vendor = Vendor({"GET /v2/catalog/gpus": raw(body.replace('"PRICE"', price))})
    assert list(vendor.provider.offers(need())) == []


@pytest.mark.parametrize("word", ["MEDIUM", "HIGH", "LOW", "NONE"])
def test_the_words_for_stock(word: str) -> None:
    found = offers(need(), {**A40, "dataCenters": [], "availability": word})
    assert [(each.region, each.stock) for each in found] == [("", word)]


@pytest.mark.parametrize("word", ["low", "PLENTY", "", None, 3, [], {}])
def test_an_unknown_word_for_stock_is_unknown(word: Any) -> None:
    (offer,) = offers(need(), {**A40, "dataCenters": [], "availability": word})
    assert offer.stock == "UNKNOWN"


@pytest.mark.parametrize("strange", [None, 1, "x", [], {}, {"id": None}, {"id": "NVIDIA A40"}])
def test_a_strange_entry_hides_none_of_the_rest(strange: Any) -> None:
    assert len(offers(need(), strange, A40)) == 2


@pytest.mark.parametrize("strange", [None, 1, "x", [], {}])
def test_a_strange_data_centre_hides_none_of_the_rest(strange: Any) -> None:
    centres = [strange, {"id": "EU-RO-1", "availability": "LOW"}]
    found = offers(need(), {**A40, "dataCenters": centres})
    assert [each.region for each in found] == ["EU-RO-1"]


def test_what_the_price_list_is_asked() -> None:
    vendor = Vendor({"GET /v2/catalog/gpus": {"gpus": []}})
    asked = Need(gpus=(("A40", 2), ("H100", 1), ("cpu", 1)), disk_gb=1, min_cuda="12.8")
    assert list(vendor.provider.offers(asked)) == []
    queries = [dict(request.url.params) for request in vendor.asked]
    assert sorted((each["cloud"], each["count"]) for each in queries) == [
        ("COMMUNITY", "1"),
        ("COMMUNITY", "2"),
        ("SECURE", "1"),
        ("SECURE", "2"),
    ]
    assert {(each["include"], each["product"], each["minCudaVersion"]) for each in queries} == {
        ("AVAILABILITY", "POD", "12.8")
    }


def test_a_volume_pins_to_its_data_centre_and_to_the_secure_cloud() -> None:
    volume = {"GET /v2/network-volumes/agv6": {"id": "agv6", "dataCenter": "EU-RO-1"}}
    found = offers(need(volume="agv6", cloud=""), A40, **volume)
    assert [(each.region, each.cloud) for each in found] == [("EU-RO-1", "secure")]


@pytest.mark.parametrize(
    ("volume", "answer", "error"),
    [
        ("agv6", problem(404, "resource not found"), Refused),
        ("agv6", problem(403, "no"), Refused),
        ("agv6", httpx.Response(502), Transient),
        ("agv6", {"id": "agv6", "dataCenter": None}, Transient),
        ("agv6", "here", Transient),
        ("../pods/x", None, Refused),
        ("a?b=c", None, Refused),
    ],
    ids=["unknown", "no right", "down", "nowhere", "no volume", "a path", "a query"],
)
def test_a_volume_that_cannot_be_had(volume: str, answer: Any, error: type[Exception]) -> None:
    vendor = Vendor({f"GET /v2/network-volumes/{volume}": answer})
    with pytest.raises(error):
        vendor.provider.offers(need(volume=volume, cloud=""))
    assert len(vendor.asked) == (answer is not None)


def test_a_volume_elsewhere_than_the_job_asks_for() -> None:
    volume = {"GET /v2/network-volumes/agv6": {"id": "agv6", "dataCenter": "EU-RO-1"}}
    with pytest.raises(Refused, match="EU-RO-1"):
        offers(need(volume="agv6", region="US-KS-2"), A40, **volume)
    assert offers(need(volume="agv6", cloud="community"), A40, **volume) == []


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_refused_price_list(status: int) -> None:
    vendor = Vendor({"GET /v2/catalog/gpus": problem(status, "no")})
    with pytest.raises(Refused) as error:
        vendor.provider.offers(need())
    assert error.value.provider_wide is (status == 403)


# Create


def request_of(**rental: Any) -> CreateRequest:
    offer = Offer(
        "runpod", "id", "A40", 2, 0, 0, 50, 0.8, region=rental.pop("region", "EU-RO-1"),
        details={"gpu": "NVIDIA A40", "cloud": "SECURE"},
    )  # fmt: skip
    return CreateRequest("j7k2-1", MARK, offer, KEY + "\n", 50, Rental(**rental))


BODY = {
    "name": MARK,
    "image": "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
    "gpu": {"id": "NVIDIA A40", "count": 2},
    "cloud": "SECURE",
    "disk": 50,
    "ports": ["22/tcp"],
    "env": {"PUBLIC_KEY": KEY, "GPUJOB_MARK": MARK},
    "dataCenterIds": ["EU-RO-1"],
}


@pytest.mark.parametrize(
    ("rental", "changed"),
    [
        ({}, {}),
        ({"image": "me/mine:1"}, {"image": "me/mine:1"}),
        ({"min_cuda": "12.8"}, {"gpu": {**BODY["gpu"], "minCudaVersion": "12.8"}}),  # type: ignore[dict-item]
        ({"ports": (22, 8888)}, {"ports": ["22/tcp", "8888/http"]}),
        (
            {"volume": "agv6", "volume_path": "/data"},
            {"mounts": {"network": [{"volumeId": "agv6", "path": "/data"}]}},
        ),
    ],
    ids=["plain", "image", "cuda", "ports", "volume"],
)
def test_the_body_of_a_create(rental: dict[str, Any], changed: dict[str, Any]) -> None:
    vendor = Vendor({"POST /v2/pods": httpx.Response(201, json=POD)})
    assert vendor.provider.create(request_of(**rental)) == POD["id"]
    (sent,) = vendor.asked
    assert json.loads(sent.content) == {**BODY, **changed}


def test_without_a_data_centre_runpod_chooses() -> None:
    vendor = Vendor({"POST /v2/pods": httpx.Response(201, json=POD)})
    vendor.provider.create(request_of(region=""))
    assert "dataCenterIds" not in json.loads(vendor.asked[0].content)


GONE = (
    "There are no longer any instances available with the requested specifications. "
    "Please refresh and try again."
)
REFUSALS: list[tuple[Any, type[Exception]]] = [
    (problem(400, GONE), NoCapacity),
    (problem(400, "This machine does not have the resources to deploy your pod"), NoCapacity),
    (problem(400, "Please try a different machine. Please try again later."), NoCapacity),
    (problem(400, "no instances available"), NoCapacity),
    (problem(400, "No GPUs are available"), NoCapacity),
    (problem(400, "INSUFFICIENT CAPACITY"), NoCapacity),
    (problem(400, "Something went wrong. Please contact support."), LostAnswer),
    (problem(409, "connection reset"), LostAnswer),
    (problem(422, "Something went wrong"), Refused),
    (problem(500, "boom"), LostAnswer),
    (problem(500, GONE), LostAnswer),
    (problem(403, "you have no access to this pool"), NoCapacity),
    (httpx.Response(400, json={"error": "not enough free GPUs on the host machine"}), NoCapacity),
    (problem(400, "network volume agv6 not found"), Refused),
    (problem(400, "You must either provide a template id or pod configuration"), Refused),
    (problem(404, "template not found"), Refused),
    (problem(403, "this API key has read-only permissions"), Refused),
    (problem(422, "$.gpu: property 'x' is unavailable"), Refused),
    (problem(400, "Your balance is too low"), Refused),
    (problem(422, "Request validation failed."), Refused),
    (problem(401, "no"), Refused),
    (problem(402, "balance too low"), Refused),
    (httpx.Response(403, content="<html>blocked</html>"), Refused),
    (problem(429, "rate limit exceeded"), Transient),
    (httpx.Response(504, content="<html>"), LostAnswer),
    (httpx.ReadTimeout("slow"), LostAnswer),
    (httpx.ConnectError("refused"), Transient),
    (raw('{"id": "8y5'), LostAnswer),
    (raw("<html>"), LostAnswer),
    (raw(""), LostAnswer),
    (raw("null"), LostAnswer),
    (raw("[]"), LostAnswer),
    (raw('"8y5"'), LostAnswer),
    (raw('{"id": ""}'), LostAnswer),
    (raw('{"id": 7}'), LostAnswer),
]


@pytest.mark.parametrize(("answer", "error"), REFUSALS)
def test_a_create_that_failed(answer: Any, error: type[Exception]) -> None:
    vendor = Vendor({"POST /v2/pods": answer})
    with pytest.raises(error) as raised:
        vendor.provider.create(request_of())
    assert type(raised.value) is error
    assert len(vendor.asked) == 1


@pytest.mark.parametrize(
    ("status", "said", "wide"),
    [
        (400, "image not found", False),
        (422, "no", False),
        (402, "no", True),
        (400, "Your balance is too low", True),
        (403, "the key lacks permission", True),
    ],
)
def test_only_what_is_about_the_account_rules_out_the_rest(
    status: int, said: str, wide: bool
) -> None:
    vendor = Vendor({"POST /v2/pods": problem(status, said)})
    with pytest.raises(Refused) as error:
        vendor.provider.create(request_of())
    assert error.value.provider_wide is wide


# List


def listed(*pods: Any) -> tuple[ProviderInstance, ...]:
    return Vendor({"GET /v2/pods": {"pods": list(pods)}}).provider.list().instances


def test_a_running_pod() -> None:
    (found,) = listed(POD)
    assert found == ProviderInstance(
        provider_id="8y5rumuyb50m78",
        mark=MARK,
        state="RUNNING",
        created_at=datetime(2026, 10, 1, 12, tzinfo=UTC),
        usd_per_hour=0.49,
        host="194.68.245.10",
        port=17445,
        user="root",
        restart_marker="2026-10-01T12:01:00Z",
        detail="RUNNING",
        phase="ready",
    )


@pytest.mark.parametrize(
    ("status", "state", "phase"),
    [
        ("PROVISIONING", "PENDING", "assigning"),
        ("STARTING", "PENDING", "starting"),
        ("RUNNING", "RUNNING", "ready"),
        ("running", "RUNNING", "ready"),
        ("EXITED", "BROKEN", "ready"),
        ("ERROR", "BROKEN", "ready"),
        ("NEW_WORD", "PENDING", "assigning"),
        (None, "PENDING", "assigning"),
        (7, "PENDING", "assigning"),
    ],
)
def test_states(status: Any, state: str, phase: str) -> None:
    (found,) = listed({**POD, "status": status})
    assert (found.state, found.phase) == (state, phase)


def test_a_terminated_pod_is_as_good_as_not_listed() -> None:
    assert listed({**POD, "status": "TERMINATED"}) == ()


DIRECT = {"host": "194.68.245.10", "port": 17445, "username": "root"}


@pytest.mark.parametrize(
    "ssh",
    [
        None,
        [],
        "root@1.2.3.4",
        {"proxy": {"host": "ssh.runpod.io", "port": 22, "username": "x"}, "direct": None},
        {"direct": []},
        {"direct": {**DIRECT, "host": None}},
        {"direct": {**DIRECT, "host": ""}},
        {"direct": {**DIRECT, "host": "-oProxyCommand=id"}},
        {"direct": {**DIRECT, "host": "1.2.3.4 -oProxyCommand=id"}},
        {"direct": {**DIRECT, "host": "1.2.3.4\n"}},
        {"direct": {**DIRECT, "host": "$(id)"}},
        {"direct": {**DIRECT, "host": "a" * 300}},
        {"direct": {**DIRECT, "port": None}},
        {"direct": {**DIRECT, "port": 0}},
        {"direct": {**DIRECT, "port": 70000}},
        {"direct": {**DIRECT, "port": -1}},
        {"direct": {**DIRECT, "port": "22; id"}},
        {"direct": {**DIRECT, "username": "-l"}},
        {"direct": {**DIRECT, "username": "root -o"}},
        {"direct": {**DIRECT, "username": ["root"]}},
    ],
)
def test_without_a_direct_endpoint_that_looks_like_one_it_still_boots(ssh: Any) -> None:
    (found,) = listed({**POD, "ssh": ssh})
    assert (found.state, found.phase) == ("PENDING", "endpoint")
    assert (found.host, found.port, found.user) == (None, None, None)


@pytest.mark.parametrize(
    ("changed", "mark"),
    [
        ({}, MARK),
        ({"env": None}, MARK),
        ({"env": []}, MARK),
        ({"env": {"GPUJOB_MARK": 5}}, MARK),
        ({"name": "renamed"}, MARK),
        ({"name": "gpujob-other"}, MARK),
        ({"name": "mine", "env": {}}, ""),
        ({"name": None, "env": {}}, ""),
        ({"name": "my-gpujob-1", "env": {"GPUJOB_MARK": "x"}}, ""),
    ],
)
def test_the_mark_is_in_the_environment_or_the_name(changed: dict[str, Any], mark: str) -> None:
    assert [each.mark for each in listed({**POD, **changed})] == ([mark] if mark else [])


@pytest.mark.parametrize("cost", [None, "0.49", -1, [], {}])
def test_a_cost_that_cannot_be_read_is_not_free(cost: Any) -> None:
    (found,) = listed({**POD, "cost": cost})
    assert math.isnan(found.usd_per_hour)


def test_a_pod_that_bills_nothing_costs_nothing() -> None:
    (found,) = listed({**POD, "status": "EXITED", "cost": 0.0})
    assert found.usd_per_hour == 0


@pytest.mark.parametrize("name", [each for each in POD if each not in ("id", "name", "env")])
@pytest.mark.parametrize("value", ["missing", None, [], {"a": {}}, "\x00" * 9, 10**30])
def test_a_pod_of_ours_is_listed_whatever_its_fields_hold(name: str, value: Any) -> None:
    pod = {key: each for key, each in POD.items() if key != name}
    (found,) = listed(pod if value == "missing" else {**pod, name: value})
    assert (found.provider_id, found.mark) == (POD["id"], MARK)
    assert found.created_at.tzinfo


def test_a_restart_is_another_marker() -> None:
    (before,), (after,) = listed(POD), listed({**POD, "startedAt": "2026-10-01T13:00:00Z"})
    assert before.restart_marker != after.restart_marker


@pytest.mark.parametrize("strange", [None, 7, "x", [], {"name": MARK}, {"id": 5}, {"id": ""}])
def test_a_list_with_what_is_no_pod_tells_nothing(strange: Any) -> None:
    with pytest.raises(Transient):
        listed(strange, POD)


def test_pods_of_others_are_passed_over() -> None:
    others = [{"id": "a"}, {"id": "b", "name": None, "env": 7}, {"id": "c", "name": "train"}]
    assert [each.provider_id for each in listed(*others, POD)] == [POD["id"]]


def test_a_pod_that_moved_to_the_next_page_is_listed_once() -> None:
    vendor = Vendor({"GET /v2/pods": [page("a", "c1"), page("a", None)]})
    assert [each.provider_id for each in vendor.provider.list().instances] == ["a"]


def test_a_list_that_goes_on_and_does_not_say_where_tells_nothing() -> None:
    more = {"nextCursor": None, "hasNextPage": True}
    with pytest.raises(Transient):
        Vendor({"GET /v2/pods": {"pods": [POD], "pagination": more}}).provider.list()


def page(pod: str, cursor: Any) -> dict[str, Any]:
    return {"pods": [{**POD, "id": pod}], "pagination": {"nextCursor": cursor}}


def test_every_page_is_read() -> None:
    vendor = Vendor({"GET /v2/pods": [page("a", "c1"), page("b", "c2"), page("c", None)]})
    listing = vendor.provider.list()
    assert [each.provider_id for each in listing.instances] == ["a", "b", "c"]
    assert [request.url.params.get("cursor") for request in vendor.asked] == [None, "c1", "c2"]
    assert {request.url.params["includeClusterPods"] for request in vendor.asked} == {"true"}
    assert listing.listed_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_list_without_an_end_tells_nothing() -> None:
    vendor = Vendor({"GET /v2/pods": page("a", "again")})
    with pytest.raises(Transient):
        vendor.provider.list()
    assert len(vendor.asked) <= 100


UNREADABLE = ["", "null", "[]", "{}", '{"pods": null}', '{"pods": {}}', '{"pods": "none"}', "<p>",
              '{"pods": [', "0", '{"error": "internal"}']  # fmt: skip


@pytest.mark.parametrize("body", UNREADABLE)
def test_what_is_no_list_is_never_an_empty_one(body: str) -> None:
    with pytest.raises(Transient):
        Vendor({"GET /v2/pods": raw(body)}).provider.list()


@pytest.mark.parametrize("body", UNREADABLE)
def test_half_a_list_is_none(body: str) -> None:
    with pytest.raises(Transient):
        Vendor({"GET /v2/pods": [page("a", "more"), raw(body)]}).provider.list()


@pytest.mark.parametrize("status", [400, 404, 403])
def test_a_refused_list_is_never_an_empty_one(status: int) -> None:
    with pytest.raises(Refused):
        Vendor({"GET /v2/pods": problem(status, "no")}).provider.list()


# The rest


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(204), None),
        (problem(404, "resource not found"), None),
        (problem(409, "locked"), Refused),
        (problem(403, "no"), Refused),
        (problem(500, "boom"), Transient),
        (httpx.ReadTimeout("slow"), Transient),
    ],
    ids=["done", "gone already", "locked", "no right", "500", "timeout"],
)
def test_terminate_deletes(answer: Any, error: type[Exception] | None) -> None:
    vendor = Vendor({"DELETE /v2/pods/8y5": answer})
    if error:
        with pytest.raises(error):
            vendor.provider.terminate("8y5")
    else:
        vendor.provider.terminate("8y5")
    assert [(each.method, each.url.path) for each in vendor.asked] == [("DELETE", "/v2/pods/8y5")]


@pytest.mark.parametrize("provider_id", ["", "..", "a/b", "a?b", "a b", "x" * 65])
def test_what_is_no_id_goes_into_no_path(provider_id: str) -> None:
    vendor = Vendor({})
    vendor.provider.terminate(provider_id)
    assert list(vendor.provider.host_keys(provider_id)) == []
    assert vendor.asked == []


FIRST, SECOND = f"SHA256:{'A' * 43}", f"SHA256:{'b' * 43}"


def log(*lines: str) -> httpx.Response:
    events = [
        f"id: 2026-06-01T12:02:03Z/{n}\ndata: {json.dumps({'source': 'container', 'line': line})}"
        for n, line in enumerate(lines)
    ]
    return httpx.Response(200, text="\n\n".join([*events, ""]))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (log("starting", f"256 {FIRST} root@8y5 (ED25519)"), [FIRST]),
        (log(f"256 {FIRST} a (ED25519)", "again", f"3072 {SECOND} a (RSA)"), [SECOND, FIRST]),
        (log(f"256 {FIRST} a (ECDSA)", f"256 {FIRST} a (ECDSA)"), [FIRST]),
        (log(f"256 {FIRST} a (ED25519)\r"), [FIRST]),
        (log("256 SHA256:tooshort a (RSA)", "no key"), []),
        (log(f"Accepted publickey for root: ED25519 {FIRST}", f"{FIRST}"), []),
        (httpx.Response(200, text=f"{FIRST}\n: {FIRST}\nid: {FIRST}\n"), []),
        (httpx.Response(200, text="data: {cut\ndata: []\ndata: null\ndata:\n"), []),
        (httpx.Response(200, text='data: {"line": 7}\ndata: {"other": 1}\n'), []),
        (httpx.Response(200, text=""), []),
        (problem(404, "no logs yet"), []),
    ],
    ids=[
        "one",
        "restarted",
        "twice",
        "blank",
        "none",
        "other key",
        "outside",
        "no JSON",
        "no text",
        "empty",
        "404",
    ],
)
def test_host_keys_from_the_log(answer: httpx.Response, found: list[str]) -> None:
    vendor = Vendor({"GET /v2/pods/8y5/logs": answer})
    assert list(vendor.provider.host_keys("8y5")) == found
    assert vendor.asked[0].url.params["source"] == "container"


def test_logs_of_both_sources_are_bounded() -> None:
    long = log(*["x" * 1000] * 300)
    vendor = Vendor({"GET /v2/pods/8y5/logs": [long, long]})
    text = vendor.provider.logs("8y5")
    assert "system" in text and "container" in text
    assert len(text) <= 64 * 1024 + 100


def test_logs_that_cannot_be_had_are_left_out() -> None:
    vendor = Vendor({"GET /v2/pods/8y5/logs": [httpx.Response(502), log("container says")]})
    assert "container says" in vendor.provider.logs("8y5")


MYSELF = {"data": {"myself": {"clientBalance": 12.5, "currentSpendPerHr": 0.4}}}


@pytest.mark.parametrize(
    ("answer", "balance"),
    [
        (MYSELF, 12.5),
        ({"data": {"myself": None}}, None),
        ({"data": None, "errors": []}, None),
        ({"data": [1]}, None),
        ({"data": {"myself": {"clientBalance": "much"}}}, None),
        (raw("null"), None),
        (raw("[]"), None),
        (problem(404, "switched off"), None),
        (httpx.Response(502), None),
    ],
)
def test_the_account_is_told_also_without_a_balance(answer: Any, balance: float | None) -> None:
    vendor = Vendor({"GET /v2/pods": {"pods": []}, "POST /graphql": answer})
    account = vendor.provider.account()
    assert account.balance_usd == balance
    assert bool(account.note) is (balance is None)


def test_a_wrong_key_is_refused() -> None:
    with pytest.raises(Refused) as error:
        Vendor({"GET /v2/pods": problem(401, "missing bearer token")}).provider.account()
    assert error.value.provider_wide


def test_a_pod_stops_itself_with_its_own_key() -> None:
    vendor = Vendor({})
    stop = vendor.provider.self_stop("8y5")
    assert stop is not None
    assert (stop.method, stop.url) == ("POST", "https://cloud.test/v2/pods/8y5/action")
    assert (stop.body, stop.token_variable) == ({"action": "stop"}, "RUNPOD_API_KEY")
    assert vendor.asked == []
