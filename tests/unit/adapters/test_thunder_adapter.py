"""Thunder Compute's answers, right, cut, strange and hostile, as the port tells them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from kit.clock import ManualClock

from orchestrator.adapters.http import Api
from orchestrator.adapters.rate import Rate
from orchestrator.adapters.thunder import ThunderProvider
from orchestrator.core.offer import Need, Offer, Rental
from orchestrator.errors import LostAnswer, NoCapacity, Refused, Transient
from orchestrator.ports import CreateRequest, ProviderInstance

MARK = "gpujob-0a1b2c-j7k2-1"
A100X4 = {
    "displayName": "A100 80GB",
    "gpuCount": 4,
    "vcpuOptions": [60, 36, 44, 52],
    "ramPerVCPUGiB": 8,
    "ramCapGiB": 420,
    "storageGB": {"min": 100, "max": 2000},
}
A6000 = {"vcpuOptions": [6, 8], "ramPerVCPUGiB": 8, "storageGB": {"min": 100, "max": 500}}
SPECS = {"specs": {"a100xl_x4": A100X4, "a6000_x1": A6000}}
PRICING = {
    "pricing": {
        "a100xl_x4": 5.96,
        "a6000_x1": 0.35,
        "a100xl": 1.09,
        "additional_vcpus": 0.04,
        "disk_gb": 0.0003,
    }
}
MARKET = {"GET /v2/specs": SPECS, "GET /v2/pricing": PRICING, "GET /v2/status": {}}
ITEM = {
    "uuid": "fi3966m0",
    "name": "fi3966m0",
    "status": "RUNNING",
    "ip": "203.0.113.10",
    "port": 31897,
    "cpuCores": "60",
    "numGpus": "4",
    "memory": "420",
    "storage": 400,
    "gpuType": "a100xl",
    "sshPublicKeys": [f"ssh-ed25519 AAAA {MARK}"],
    "createdAt": "2026-08-15T14:27:25Z",
}
LIST = "GET /v1/instances/list"
CREATE = "POST /v1/instances/create"


class Vendor:
    """Answers by method and path, and remembers what it was asked. A list of answers is given one
    by one."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = {**MARKET, **answers}
        self.asked: list[httpx.Request] = []
        self.provider = ThunderProvider(
            Api(
                "https://cloud.test:8443",
                token=lambda: "tnr_SECRET",
                user_agent="gpujob/0",
                rate=Rate(ManualClock(), per_minute=500),
                transport=httpx.MockTransport(self._answer),
            ),
            ManualClock(),
        )

    @property
    def paths(self) -> list[str]:
        return [f"{each.method} {each.url.path}" for each in self.asked]

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


def error_of(status: int, said: str, slug: str = "invalid_request") -> httpx.Response:
    return httpx.Response(status, json={"code": status, "error": slug, "message": said})


# Offers


def need(gpu: str = "A100", count: int = 4, **more: Any) -> Need:
    return Need(**{"gpus": ((gpu, count),), "disk_gb": 100, **more})


def offers(asked: Need, **answers: Any) -> Sequence[Offer]:
    named = {f"GET /v2/{name}": answer for name, answer in answers.items()}
    return Vendor(named).provider.offers(asked)


@pytest.mark.parametrize(
    ("asked", "vcpus", "ram_gb", "disk_gb", "price"),
    [
        (need(), 60, 420, 400, 5.96),
        (need(disk_gb=400), 60, 420, 400, 5.96),
        (need(disk_gb=1000), 60, 420, 1000, 5.96 + 600 * 0.0003),
        (need(vcpus=40), 60, 420, 400, 5.96),
        (need(gpu="a6000", count=1), 6, 48, 100, 0.35),
        (need(gpu="a6000", count=1, disk_gb=1), 6, 48, 100, 0.35),
        (need(gpu="a6000", count=1, vcpus=7), 8, 64, 100, 0.35 + 2 * 0.04),
        (need(gpu="a6000", count=1, ram_gb=50), 8, 64, 100, 0.35 + 2 * 0.04),
        (
            need(gpu="a6000", count=1, vcpus=8, disk_gb=300),
            8,
            64,
            300,
            0.35 + 2 * 0.04 + 200 * 0.0003,
        ),
    ],
    ids=["included", "free disk", "more disk", "enough", "one", "least disk", "vcpus", "ram",
         "both"],
)  # fmt: skip
def test_an_offer_and_what_it_costs(
    asked: Need, vcpus: int, ram_gb: int, disk_gb: int, price: float
) -> None:
    (offer,) = offers(asked)
    assert (offer.vcpus, offer.ram_gb, offer.disk_gb) == (vcpus, ram_gb, disk_gb)
    assert offer.usd_per_hour == pytest.approx(price)
    assert offer.count == asked.gpus[0][1]
    assert (offer.provider, offer.region, offer.stock) == ("thunder", "", "UNKNOWN")
    assert offer.seen_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (need(gpu="A100-80GB"), 1),
        (need(gpu="A100-40GB"), 0),
        (need(gpu="*"), 1),
        (need(gpu="RTXA6000", count=1), 1),
        (need(count=1), 0),
        (need(disk_gb=2001), 0),
        (need(vcpus=61), 0),
        (need(ram_gb=421), 0),
        (need(region="US"), 0),
        (need(volume="agv6"), 0),
        (need(cloud="community"), 0),
        (need(cloud="secure"), 1),
    ],
)
def test_which_offers_fit(asked: Need, count: int) -> None:
    assert len(offers(asked)) == count


@pytest.mark.parametrize(
    ("status", "stock"),
    [
        ({"specs": {"a100xl_x4": "unavailable"}}, "NONE"),
        ({"specs": {"a100xl_x4": "Unavailable"}}, "NONE"),
        ({"specs": {"a100xl_x4": "available"}, "gpu_type": {"a100xl": "unavailable"}}, "UNKNOWN"),
        ({"specs": {"a6000_x1": "unavailable"}}, "UNKNOWN"),
        ({"specs": {"a100xl_x4": None}}, "UNKNOWN"),
        ({"specs": []}, "UNKNOWN"),
        ({}, "UNKNOWN"),
        (raw("null"), "UNKNOWN"),
        (error_of(404, "no such route"), "UNKNOWN"),
    ],
)
def test_without_a_word_of_the_stock_it_counts_as_available(status: Any, stock: str) -> None:
    (offer,) = offers(need(), status=status)
    assert offer.stock == stock


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        "x",
        [],
        {},
        {**A100X4, "vcpuOptions": []},
        {**A100X4, "vcpuOptions": None},
        {**A100X4, "vcpuOptions": ["many"]},
        {**A100X4, "ramPerVCPUGiB": None},
        {**A100X4, "ramCapGiB": "much"},
        {**A100X4, "storageGB": None},
        {**A100X4, "storageGB": {"min": 100}},
    ],
)
def test_a_spec_that_cannot_be_read_hides_none_of_the_rest(entry: Any) -> None:
    specs = {"specs": {"a100xl_x4": entry, "odd key": A6000, "a6000_x1": A6000}}
    assert offers(need(), specs=specs) == ()
    assert len(offers(need(gpu="A6000", count=1), specs=specs)) == 1


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-1", "0", "null", '"5.96"', "true"])
def test_a_spec_whose_price_is_no_number_is_no_offer(price: str) -> None:
    text = json.dumps(PRICING).replace("5.96", price)
    assert offers(need(), pricing=raw(text)) == ()
    assert len(offers(need(gpu="A6000", count=1), pricing=raw(text))) == 1


@pytest.mark.parametrize(("disk_gb", "count"), [(400, 1), (900, 0)])
def test_what_takes_a_price_that_is_not_told_is_no_offer(disk_gb: int, count: int) -> None:
    table = {key: value for key, value in PRICING["pricing"].items() if key != "disk_gb"}
    found = offers(replace(need(), disk_gb=disk_gb), pricing={"pricing": table})
    assert len(found) == count


@pytest.mark.parametrize("name", ["specs", "pricing"])
@pytest.mark.parametrize(
    "answer",
    [raw("null"), raw("[]"), {}, {"specs": [], "pricing": []}, SPECS["specs"], raw("<p>")],
    ids=["null", "list", "empty", "lists", "no envelope", "html"],
)
def test_a_price_list_that_cannot_be_read(name: str, answer: Any) -> None:
    with pytest.raises(Transient):
        offers(need(), **{name: answer})


# Create


def request_of(image: str = "auto") -> CreateRequest:
    offer = Offer(
        "thunder", "id", "A100-80GB", 4, 60, 420, 400, 5.96, details={"gpu_type": "a100xl"}
    )
    rental = Rental(image=image, min_cuda="12.8", ports=(8888,))
    return CreateRequest("j7k2-1", MARK, offer, "ssh-ed25519 AAAA me@home\n", 50, rental)


@pytest.mark.parametrize(("image", "template"), [("auto", "base"), ("ollama", "ollama")])
def test_the_body_of_a_create(image: str, template: str) -> None:
    vendor = Vendor({CREATE: httpx.Response(201, json={"identifier": 0, "uuid": "fi3966m0"})})
    assert vendor.provider.create(request_of(image)) == "fi3966m0"
    (sent,) = vendor.asked
    assert json.loads(sent.content) == {
        "gpu_type": "a100xl",
        "num_gpus": 4,
        "cpu_cores": 60,
        "disk_size_gb": 400,
        "template": template,
        "public_key": f"ssh-ed25519 AAAA {MARK}",
    }


REFUSALS: list[tuple[Any, type[Exception], bool]] = [
    (error_of(400, "no instances available"), NoCapacity, False),
    (error_of(503, "no capacity"), LostAnswer, False),
    (error_of(409, "GPU currently unavailable"), NoCapacity, False),
    (error_of(400, "A100 is sold out"), NoCapacity, False),
    (error_of(400, "Payment required: add a card"), Refused, True),
    (error_of(403, "no credit left", "forbidden"), Refused, True),
    (error_of(402, "pay"), Refused, True),
    (error_of(401, "unauthorized"), Refused, True),
    (httpx.Response(403, content="<p>blocked</p>"), Refused, True),
    (error_of(400, "validation: invalid vCPU count 4; valid options: [6 8]"), Refused, False),
    (error_of(400, "the discarded field is invalid"), Refused, False),
    (error_of(404, "template not found", "not_found"), Refused, False),
    (error_of(429, "Too many requests."), Transient, False),
    (httpx.ConnectError("refused"), Transient, False),
    (httpx.ReadTimeout("slow"), LostAnswer, False),
    (error_of(500, "internal"), LostAnswer, False),
    (httpx.Response(524, content="<p>"), LostAnswer, False),
    (raw('{"uuid": "fi'), LostAnswer, False),
    (raw("<p>"), LostAnswer, False),
    (raw(""), LostAnswer, False),
    (raw("[]"), LostAnswer, False),
    (raw('{"identifier": 0}'), LostAnswer, False),
    (raw('{"uuid": ""}'), LostAnswer, False),
    (raw('{"uuid": 7}'), LostAnswer, False),
]


@pytest.mark.parametrize(("answer", "error", "wide"), REFUSALS)
def test_a_create_that_failed(answer: Any, error: type[Exception], wide: bool) -> None:
    vendor = Vendor({CREATE: answer})
    with pytest.raises(error) as raised:
        vendor.provider.create(request_of())
    assert type(raised.value) is error
    assert getattr(raised.value, "provider_wide", False) is wide
    assert vendor.paths.count(CREATE) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ({"specs": {"a100xl_x4": "unavailable"}}, NoCapacity),
        ({"specs": {"a100xl_x4": "available"}}, Refused),
        (httpx.Response(502), Refused),
    ],
    ids=["unavailable", "available", "down"],
)
def test_a_text_that_nobody_knows_is_judged_by_the_stock(
    status: Any, error: type[Exception]
) -> None:
    vendor = Vendor({CREATE: error_of(400, "we are sorry"), "GET /v2/status": status})
    with pytest.raises(error) as raised:
        vendor.provider.create(request_of())
    assert "we are sorry" in str(raised.value)


# List


def listed(*listing: Any, **answers: Any) -> tuple[ProviderInstance, ...]:
    named = {f"GET /v2/{name}": answer for name, answer in answers.items()}
    items = {str(index): item for index, item in enumerate(listing)}
    return Vendor({LIST: items, **named}).provider.list().instances


def test_a_running_instance() -> None:
    (found,) = listed(ITEM)
    assert found == ProviderInstance(
        provider_id="fi3966m0",
        mark=MARK,
        state="RUNNING",
        created_at=datetime(2026, 8, 15, 14, 27, 25, tzinfo=UTC),
        usd_per_hour=5.96,
        host="203.0.113.10",
        port=31897,
        user="ubuntu",
        restart_marker="never",
        detail="RUNNING",
        phase="ready",
    )


@pytest.mark.parametrize(
    ("status", "state", "phase"),
    [
        ("PENDING", "PENDING", "assigning"),
        ("QUEUED", "PENDING", "assigning"),
        ("STAGING", "PENDING", "assigning"),
        ("PROVISIONING", "PENDING", "starting"),
        ("CREATING", "PENDING", "starting"),
        ("STARTING", "PENDING", "starting"),
        ("RESTORING", "PENDING", "starting"),
        ("SNAPPING", "PENDING", "starting"),
        ("MODIFYING", "PENDING", "starting"),
        ("MIGRATING", "PENDING", "starting"),
        ("UNKNOWN", "PENDING", "starting"),
        ("running", "RUNNING", "ready"),
        ("STOPPING", "BROKEN", "ready"),
        ("STOPPED", "BROKEN", "ready"),
        ("DELETING", "BROKEN", "ready"),
        ("NEW_WORD", "PENDING", "starting"),
        (None, "PENDING", "starting"),
    ],
)
def test_states(status: Any, state: str, phase: str) -> None:
    (found,) = listed({**ITEM, "status": status})
    assert (found.state, found.phase) == (state, phase)


@pytest.mark.parametrize(
    "host",
    [None, "", 7, [], "-oProxyCommand=id", "1.2.3.4; id", "1.2.3.4\n", "$(id)", "fe80::1%$(id)",
     "1.2.3", "a b"],
)  # fmt: skip
def test_a_host_that_is_none_is_not_told(host: Any) -> None:
    (found,) = listed({**ITEM, "ip": host})
    assert found.host is None
    assert (found.state, found.phase) == ("PENDING", "endpoint")


@pytest.mark.parametrize(
    ("port", "told"),
    [
        (31897, 31897),
        ("31897", 31897),
        (0, 22),
        ("0", 22),
        (None, 22),
        ("", 22),
        (70000, None),
        (-1, None),
        ("22; id", None),
        ([], None),
        ({}, None),
        (True, None),
    ],
)
def test_the_port_of_ssh(port: Any, told: int | None) -> None:
    (found,) = listed({**ITEM, "port": port})
    assert found.port == told
    assert found.state == ("RUNNING" if told else "PENDING")


@pytest.mark.parametrize(
    ("keys", "mark"),
    [
        ([f"ssh-ed25519 AAAA {MARK}"], MARK),
        (["ssh-rsa BBBB me@home", f"ssh-ed25519 AAAA {MARK}"], MARK),
        ([None, 5, f"ssh-ed25519 AAAA {MARK} more"], MARK),
        (["ssh-ed25519 AAAA"], ""),
        (["ssh-ed25519 AAAA me@gpujob-1"], ""),
        ([MARK], ""),
        ([], ""),
        (None, ""),
        (f"ssh-ed25519 AAAA {MARK}", ""),
        ({"a": f"ssh-ed25519 AAAA {MARK}"}, ""),
    ],
)
def test_the_mark_is_the_comment_of_a_key(keys: Any, mark: str) -> None:
    found = listed({**ITEM, "sshPublicKeys": keys})
    assert [each.mark for each in found] == ([mark] if mark else [])


@pytest.mark.parametrize(
    ("last", "marker"),
    [
        (None, "never"),
        ({"reason": "OOMKilled", "timestamp": "2026-08-15T15:00:00Z"}, "2026-08-15T15:00:00Z"),
        ({"timestamp": "2026-08-15T16:00:00Z", "exitCode": 137}, "2026-08-15T16:00:00Z"),
        ({"reason": "OOMKilled"}, "?"),
        ("yes", "never"),
    ],
)
def test_a_restart_is_what_the_last_one_says(last: Any, marker: str) -> None:
    (found,) = listed({**ITEM, "lastRestart": last})
    assert found.restart_marker == marker


def test_a_move_is_no_restart() -> None:
    (before,), (after,) = listed(ITEM), listed({**ITEM, "ip": "203.0.113.99", "port": 2222})
    assert (after.host, after.port) == ("203.0.113.99", 2222)
    assert before.restart_marker == after.restart_marker


@pytest.mark.parametrize(
    ("changed", "price"),
    [
        ({}, 5.96),
        ({"cpuCores": 60, "numGpus": 4, "storage": "400"}, 5.96),
        ({"gpuType": "A100XL", "storage": "500 GB"}, 5.96 + 100 * 0.0003),
        ({"cpuCores": "36"}, 5.96),
        ({"cpuCores": None, "storage": None}, 5.96),
        ({"gpuType": "a6000", "numGpus": "1", "cpuCores": "8", "storage": 100}, 0.43),
        ({"gpuType": "b300"}, math.nan),
        ({"gpuType": None}, math.nan),
        ({"numGpus": "3"}, math.nan),
    ],
)
def test_what_an_instance_costs(changed: dict[str, Any], price: float) -> None:
    (found,) = listed({**ITEM, **changed})
    assert found.usd_per_hour == pytest.approx(price, nan_ok=True)


@pytest.mark.parametrize("answer", [httpx.Response(502), error_of(403, "no"), raw("null")])
def test_without_a_price_list_the_list_is_as_good_as_ever(answer: httpx.Response) -> None:
    (found,) = listed(ITEM, pricing=answer)
    assert (found.provider_id, found.state) == ("fi3966m0", "RUNNING")
    assert math.isnan(found.usd_per_hour)


def test_the_price_list_is_asked_once_and_not_for_nothing() -> None:
    vendor = Vendor({LIST: [{}, {"0": ITEM}, {"0": ITEM}]})
    assert vendor.provider.list().instances == ()
    assert vendor.paths == [LIST]
    vendor.provider.list()
    vendor.provider.list()
    assert vendor.paths.count("GET /v2/pricing") == 1


@pytest.mark.parametrize("name", [each for each in ITEM if each not in ("uuid", "sshPublicKeys")])
@pytest.mark.parametrize("value", ["missing", None, [], {"a": {}}, "\x00" * 9, 10**30])
def test_an_instance_of_ours_is_listed_whatever_its_fields_hold(name: str, value: Any) -> None:
    item = {key: each for key, each in ITEM.items() if key != name}
    (found,) = listed(item if value == "missing" else {**item, name: value})
    assert (found.provider_id, found.mark) == ("fi3966m0", MARK)
    assert found.created_at.tzinfo


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "0",
        '"none"',
        "<p>",
        '{"0": {"uuid"',
        '{"error": "internal"}',
        '{"message": "Success", "code": 200}',
        '{"instances": []}',
        '{"0": null}',
        '{"0": {}}',
        '{"0": {"uuid": 7}}',
        '{"0": {"uuid": ""}}',
        '{"../x": {"uuid": "a"}}',
    ],
)
def test_what_is_no_list_is_never_an_empty_one(body: str) -> None:
    vendor = Vendor({LIST: raw(body)})
    with pytest.raises(Transient):
        vendor.provider.list()
    with pytest.raises(Transient):
        vendor.provider.terminate("fi3966m0")
    assert set(vendor.paths) == {LIST}


def test_an_empty_list() -> None:
    listing = Vendor({LIST: raw("{}")}).provider.list()
    assert listing.instances == ()
    assert listing.listed_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_refused_list_is_never_an_empty_one(status: int) -> None:
    with pytest.raises(Refused):
        Vendor({LIST: error_of(status, "no")}).provider.list()


# Terminate and access


OTHER = {**ITEM, "uuid": "other"}
DONE = {"message": "Success"}


def test_the_index_is_looked_up_right_before_each_delete() -> None:
    vendor = Vendor(
        {
            LIST: [{"0": OTHER, "1": ITEM}, {"0": OTHER, "1": ITEM}, {"0": ITEM, "1": OTHER}],
            "POST /v1/instances/1/delete": DONE,
            "POST /v1/instances/0/delete": DONE,
        }
    )
    vendor.provider.list()
    vendor.provider.terminate("fi3966m0")
    vendor.provider.terminate("fi3966m0")
    assert [path for path in vendor.paths if "/v1/" in path] == [
        LIST,
        LIST,
        "POST /v1/instances/1/delete",
        LIST,
        "POST /v1/instances/0/delete",
    ]


@pytest.mark.parametrize("listing", [{}, {"0": OTHER}], ids=["none", "of others"])
@pytest.mark.parametrize("provider_id", ["fi3966m0", "0", ""])
def test_what_is_not_listed_is_deleted_by_no_index(listing: Any, provider_id: str) -> None:
    vendor = Vendor({LIST: listing})
    vendor.provider.terminate(provider_id)
    assert vendor.paths == [LIST]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (DONE, None),
        (error_of(404, "gone", "not_found"), None),
        (error_of(400, "not now"), Refused),
        (error_of(403, "no"), Refused),
        (error_of(429, "slow down"), Transient),
        (error_of(500, "internal"), Transient),
        (httpx.ReadTimeout("slow"), Transient),
    ],
    ids=["done", "gone already", "400", "403", "429", "500", "timeout"],
)
def test_how_a_delete_may_end(answer: Any, error: type[Exception] | None) -> None:
    vendor = Vendor({LIST: {"3": ITEM}, "POST /v1/instances/3/delete": answer})
    if error:
        with pytest.raises(error):
            vendor.provider.terminate("fi3966m0")
    else:
        vendor.provider.terminate("fi3966m0")
    assert vendor.paths == [LIST, "POST /v1/instances/3/delete"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"success": True, "uuid": "fi3966m0"}, None),
        (error_of(409, "it has the key", "conflict"), None),
        (error_of(404, "gone"), None),
        (error_of(400, "no key"), Refused),
        ({"success": False, "message": "busy"}, Transient),
        (httpx.Response(502), Transient),
    ],
    ids=["added", "there", "gone", "400", "no success", "502"],
)
def test_an_added_key_carries_the_mark(answer: Any, error: type[Exception] | None) -> None:
    vendor = Vendor({LIST: {"3": ITEM}, "POST /v1/instances/3/add_key": answer})
    if error:
        with pytest.raises(error):
            vendor.provider.ensure_access("fi3966m0", "ssh-ed25519 CCCC me\n")
    else:
        vendor.provider.ensure_access("fi3966m0", "ssh-ed25519 CCCC me\n")
    assert json.loads(vendor.asked[-1].content) == {"public_key": f"ssh-ed25519 CCCC {MARK}"}


def test_no_key_for_what_is_not_listed() -> None:
    vendor = Vendor({LIST: {"0": OTHER}})
    vendor.provider.ensure_access("fi3966m0", "ssh-ed25519 CCCC")
    assert vendor.paths == [LIST]


# The rest


@pytest.mark.parametrize(
    ("answer", "who"),
    [
        ({"valid": True, "email": "me@home.test"}, "me@home.test"),
        ({"valid": True, "org_name": "Home"}, "Home"),
        ({}, "the key's account"),
    ],
)
def test_whose_account(answer: Any, who: str) -> None:
    account = Vendor({"GET /v1/auth/validate": answer}).provider.account()
    assert (account.who, account.balance_usd) == (who, None)
    assert account.note


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"valid": False}, Refused),
        (error_of(401, "unauthorized"), Refused),
        (httpx.Response(403, content="<p>blocked</p>"), Refused),
        (raw("null"), Transient),
        (httpx.Response(502), Transient),
    ],
    ids=["not valid", "401", "edge", "null", "502"],
)
def test_a_key_that_opens_nothing(answer: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        Vendor({"GET /v1/auth/validate": answer}).provider.account()
    assert getattr(raised.value, "provider_wide", True)


def test_what_thunder_cannot_do_asks_nobody() -> None:
    vendor = Vendor({})
    assert vendor.provider.self_stop("fi3966m0") is None
    assert list(vendor.provider.host_keys("fi3966m0")) == []
    assert vendor.provider.logs("fi3966m0") == ""
    assert vendor.asked == []
