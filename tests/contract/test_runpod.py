"""RunPod's adapter against the emulated RunPod, well and ill."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cloud_suite import CloudSuite, Rented, provider_of
from kit.boxes import until

from orchestrator.core.offer import Need
from orchestrator.errors import LostAnswer, NoCapacity, ProviderError, Refused, Transient

pytestmark = pytest.mark.e2e

# fault: (its parameters, the error, what was rented)
CREATES: dict[str, tuple[dict[str, Any], type[ProviderError], int]] = {
    "create-500": ({}, LostAnswer, 0),
    "create-500-but-created": ({}, LostAnswer, 1),
    "create-hangs-but-created": ({"hang_s": 8.0}, LostAnswer, 1),
    "create-answer-lost": ({}, LostAnswer, 1),
    "done-then-502": ({"method": "POST"}, LostAnswer, 1),
    "no-capacity": ({}, NoCapacity, 0),
    "pool-forbidden": ({}, NoCapacity, 0),
    "short-balance": ({}, Refused, 0),
    "unauthorized": ({"method": "POST"}, Refused, 0),
    "forbidden-1010": ({"method": "POST"}, Refused, 0),
    "html-429": ({"method": "POST"}, Transient, 0),
    "rate-limited": ({"method": "POST"}, Transient, 0),
    "html-502": ({"method": "POST"}, LostAnswer, 0),
}
LISTS: dict[str, type[ProviderError]] = {
    "html-502": Transient,
    "html-429": Transient,
    "internal-500": Transient,
    "answer-lost": Transient,
    "rate-limited": Transient,
    "unauthorized": Refused,
    "forbidden-1010": Refused,
}


class TestRunPod(CloudSuite):
    kind = "runpod"
    revoked = "unauthorized"

    @pytest.mark.parametrize("fault", CREATES)
    def test_a_create_that_failed_says_what_to_do_next(self, rented: Rented, fault: str) -> None:
        params, error, count = CREATES[fault]
        rented.cloud.fault(fault, **params)
        raised = rented.refused(error)
        assert rented.marks() == ["gpujob-one"] * count
        if isinstance(raised, Refused):
            assert raised.provider_wide and raised.hint
        if count:
            rented.cloud.disarm()
            assert [each.mark for each in rented.provider.list().instances] == rented.marks()

    @pytest.mark.parametrize("fault", LISTS)
    def test_a_list_that_failed_is_no_empty_list(self, rented: Rented, fault: str) -> None:
        rented.create()
        rented.cloud.fault(fault, method="GET", path="/v2/pods")
        with pytest.raises(LISTS[fault]):
            rented.provider.list()

    def test_every_page_of_the_list_is_read(self, rented: Rented) -> None:
        made = {rented.create(name) for name in ("one", "two", "three")}
        rented.cloud.fault("list-pages", page_size=1)
        assert {each.provider_id for each in rented.provider.list().instances} == made

    def test_a_pod_that_lingers_as_terminated_is_not_listed(self, rented: Rented) -> None:
        made = rented.running().provider_id
        rented.cloud.fault("delete-lingers", for_s=30.0)
        rented.provider.terminate(made)
        assert rented.find(made) is None

    def test_without_a_direct_endpoint_it_does_not_run(self, rented: Rented) -> None:
        rented.cloud.fault("no-endpoint")
        made = rented.create()
        assert until(lambda: (it := rented.find(made)) is not None and it.phase == "endpoint")
        told = rented.find(made)
        assert told and (told.state, told.host, told.detail) == ("PENDING", None, "RUNNING")

    @pytest.mark.parametrize(("fault", "bills"), [("pod-error", True), ("maintenance-exit", False)])
    def test_what_cannot_work_is_broken(self, rented: Rented, fault: str, bills: bool) -> None:
        rented.cloud.fault(fault)
        made = rented.create()
        assert until(lambda: (it := rented.find(made)) is not None and it.state == "BROKEN")
        told = rented.find(made)
        assert told and (told.usd_per_hour > 0) is bills

    def test_an_ended_pod_with_an_old_endpoint_does_not_run(self, rented: Rented) -> None:
        made = rented.running().provider_id
        rented.cloud.fault("stale-runtime")
        rented.cloud.fault("maintenance-exit")
        assert until(lambda: (it := rented.find(made)) is not None and it.state == "BROKEN")

    def test_another_port_alone_is_no_restart(self, rented: Rented) -> None:
        before = rented.running()
        rented.cloud.fault("port-changes-after-restart")
        assert until(
            lambda: (it := rented.find(before.provider_id)) is not None and it.port != before.port
        )
        after = rented.find(before.provider_id)
        assert after and after.restart_marker == before.restart_marker

    def test_a_restart_is_told_by_another_marker(self, rented: Rented) -> None:
        """RunPod tells whole seconds, so the first may be in the same one."""
        before = rented.running()

        def is_another() -> bool:
            found = rented.find(before.provider_id)
            if found is None or found.state != "RUNNING":
                return False
            if found.restart_marker != before.restart_marker:
                return True
            rented.ask("POST", f"/v2/pods/{before.provider_id}/action", {"action": "restart"})
            return False

        assert until(is_another)

    def test_the_price_is_the_pods_own(self, rented: Rented) -> None:
        rented.cloud.fault("price-differs", factor=3.0)
        told = rented.running()
        assert told.usd_per_hour == pytest.approx(3 * rented.request().offer.usd_per_hour)

    def test_the_fingerprint_is_the_box_s_own(self, rented: Rented) -> None:
        made = rented.running().provider_id
        (found,) = rented.provider.host_keys(made)
        (box,) = rented.cloud.instances()
        digest = hashlib.sha256(base64.b64decode(box["host_key"].split()[1])).digest()
        assert found == "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def test_without_a_fingerprint_in_the_log_there_is_none(self, rented: Rented) -> None:
        rented.cloud.fault("no-host-key-in-log")
        assert list(rented.provider.host_keys(rented.running().provider_id)) == []

    def test_the_pods_own_key_stops_it(self, rented: Rented) -> None:
        made = rented.running().provider_id
        stop = rented.provider.self_stop(made)
        key = rented.cloud.instances()[0]["pod_key"]
        assert stop is not None
        rented.ask(stop.method, stop.url, dict(stop.body), key=key)
        told = rented.find(made)
        assert told and (told.state, told.usd_per_hour) == ("BROKEN", 0.0)

    def test_the_balance_is_the_accounts(self, rented: Rented) -> None:
        rented.cloud.balance(12.5)
        assert rented.provider.account().balance_usd == pytest.approx(12.5)

    def test_a_key_without_rights_is_no_want_of_capacity(self, rented: Rented) -> None:
        request = rented.request()
        rented.running()
        weak = provider_of(rented.cloud, key=rented.cloud.instances()[0]["pod_key"])
        with pytest.raises(Refused) as error:
            weak.create(request)
        assert error.value.provider_wide and "right" in str(error.value.hint)

    @pytest.mark.parametrize(
        ("need", "places"),
        [
            (Need(gpus=(("A40", 2),), disk_gb=20, region="us-ga-2"), {"US-GA-2"}),
            (Need(gpus=(("A40", 2),), disk_gb=20, region="XX-XX-9"), set()),
            (Need(gpus=(("A40", 64),), disk_gb=20), set()),
            (Need(gpus=(("RTX-4090", 1),), disk_gb=20, min_cuda="13.0"), {"EU-RO-1"}),
        ],
        ids=["region", "no such region", "impossible count", "cuda"],
    )
    def test_where_it_may_be_rented(self, rented: Rented, need: Need, places: set[str]) -> None:
        offers = rented.provider.offers(need)
        assert {each.region for each in offers if each.stock != "NONE"} == places

    def rent_without_a_mark(self, rented: Rented) -> None:
        gpu = {"id": "NVIDIA A40", "count": 1}
        rented.ask("POST", "/v2/pods", {"name": "mine", "image": "ubuntu", "disk": 10, "gpu": gpu})
