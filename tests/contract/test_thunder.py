"""Thunder's adapter against the emulated Thunder Compute, well and ill."""

from __future__ import annotations

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
    "create-hangs-but-created": ({"for_s": 8.0}, LostAnswer, 1),
    "create-cut-short": ({}, LostAnswer, 1),
    "html-502": ({"path": "/v1/instances/create"}, LostAnswer, 0),
    "vcpu-rejected": ({}, Refused, 0),
    "no-capacity": ({"spec": "a6000_x1", "times": "always"}, NoCapacity, 0),
    "payment-required": ({}, Refused, 0),
    "rate-limited": ({}, Transient, 0),
    "token-revoked": ({}, Refused, 0),
}
LISTS: dict[str, type[ProviderError]] = {
    "html-502": Transient,
    "list-cut-short": Transient,
    "rate-limited": Transient,
    "token-revoked": Refused,
    "forbidden-no-user-agent": Refused,
}
BOTH = Need(gpus=(("A6000", 1), ("L40", 1)), disk_gb=20)


class TestThunder(CloudSuite):
    kind = "thunder"
    revoked = "token-revoked"

    @pytest.mark.parametrize("fault", CREATES)
    def test_a_create_that_failed_says_what_to_do_next(self, rented: Rented, fault: str) -> None:
        params, error, count = CREATES[fault]
        rented.cloud.fault(fault, **params)
        raised = rented.refused(error)
        assert rented.marks() == ["gpujob-one"] * count
        if isinstance(raised, Refused):
            assert raised.provider_wide is (fault != "vcpu-rejected")
        if count:
            rented.cloud.disarm()
            assert [each.mark for each in rented.provider.list().instances] == rented.marks()

    @pytest.mark.parametrize("fault", LISTS)
    def test_a_list_that_failed_is_no_empty_list(self, rented: Rented, fault: str) -> None:
        rented.create()
        rented.cloud.fault(fault)
        with pytest.raises(LISTS[fault]):
            rented.provider.list()

    def test_the_right_one_ends_although_indices_move(self, rented: Rented) -> None:
        made = [rented.create(name) for name in ("one", "two", "three")]
        rented.cloud.fault("index-moves")
        for ended in (made[1], made[0]):
            rented.provider.terminate(ended)
            assert until(lambda ended=ended: rented.find(ended) is None)
        assert rented.marks() == ["gpujob-three"]

    def test_an_ending_that_failed_can_be_repeated(self, rented: Rented) -> None:
        made = rented.create()
        rented.cloud.fault("delete-500")
        with pytest.raises(Transient):
            rented.provider.terminate(made)
        rented.provider.terminate(made)
        assert until(lambda: rented.marks() == [])

    def test_what_is_being_deleted_is_broken(self, rented: Rented) -> None:
        made = rented.running().provider_id
        rented.cloud.fault("delete-slow", for_s=30.0)
        rented.provider.terminate(made)
        told = rented.find(made)
        assert told and (told.state, told.detail) == ("BROKEN", "DELETING")

    def test_an_unknown_status_is_pending(self, rented: Rented) -> None:
        rented.cloud.fault("status-unknown", for_s=30.0)
        made = rented.create()
        assert until(lambda: (it := rented.find(made)) is not None and it.detail == "UNKNOWN")
        told = rented.find(made)
        assert told and told.state == "PENDING"

    def test_without_an_address_it_does_not_run(self, rented: Rented) -> None:
        rented.cloud.fault("no-address")
        made = rented.create()
        assert until(lambda: (it := rented.find(made)) is not None and it.phase == "endpoint")
        told = rented.find(made)
        assert told and (told.state, told.host, told.detail) == ("PENDING", None, "RUNNING")

    def test_stopped_has_no_way_back(self, rented: Rented) -> None:
        made = rented.running().provider_id
        rented.cloud.fault("stopped", after_s=0.0)
        assert until(lambda: (it := rented.find(made)) is not None and it.state == "BROKEN")

    def test_another_address_alone_is_no_restart(self, rented: Rented) -> None:
        before = rented.running()
        rented.cloud.fault("address-changes", after_s=0.0)
        assert until(
            lambda: (
                (it := rented.find(before.provider_id)) is not None
                and it.state == "RUNNING"
                and it.port != before.port
            )
        )
        after = rented.find(before.provider_id)
        assert after and after.restart_marker == before.restart_marker

    def test_a_restart_is_told_by_another_marker(self, rented: Rented) -> None:
        before = rented.running()
        rented.cloud.fault("container-restarts", after_s=0.0)
        assert until(
            lambda: (
                (it := rented.find(before.provider_id)) is not None
                and it.restart_marker != before.restart_marker
            )
        )

    def test_more_disk_and_more_cpus_cost_more_and_are_told(self, rented: Rented) -> None:
        need = Need(gpus=(("A6000", 1),), disk_gb=300, vcpus=8)
        (offer,) = rented.provider.offers(need)
        assert (offer.vcpus, offer.ram_gb, offer.disk_gb) == (8, 64, 300)
        assert offer.usd_per_hour == pytest.approx(0.35 + 2 * 0.04 + 200 * 0.0003)

    @pytest.mark.parametrize(
        ("need", "found"),
        [
            (Need(gpus=(("A6000", 1),), disk_gb=20), {("RTXA6000", 1, 100)}),
            (Need(gpus=(("A100-80GB", 2),), disk_gb=20), {("A100-80GB", 2, 200)}),
            (Need(gpus=(("A6000", 2),), disk_gb=20), set()),
            (Need(gpus=(("A6000", 1),), disk_gb=501), set()),
            (Need(gpus=(("A6000", 1),), disk_gb=20, vcpus=9), set()),
            (Need(gpus=(("cpu", 1),), disk_gb=20), set()),
        ],
        ids=["one", "two", "impossible count", "disk too big", "too many cpus", "cpu"],
    )
    def test_what_may_be_rented(
        self, rented: Rented, need: Need, found: set[tuple[str, int, int]]
    ) -> None:
        offers = rented.provider.offers(need)
        assert {(each.gpu, each.count, each.disk_gb) for each in offers} == found

    def test_the_price_is_known_to_who_never_asked_for_offers(self, rented: Rented) -> None:
        price = rented.request().offer.usd_per_hour
        rented.create()
        (told,) = provider_of(rented.cloud).list().instances
        assert told.usd_per_hour == pytest.approx(price)

    def test_what_is_out_of_stock_is_told(self, rented: Rented) -> None:
        rented.cloud.fault("no-capacity", spec="a6000_x1")
        stock = {each.gpu: each.stock for each in rented.provider.offers(BOTH)}
        assert stock == {"RTXA6000": "NONE", "L40": "UNKNOWN"}

    def test_who_pays(self, rented: Rented) -> None:
        account = rented.provider.account()
        assert account.balance_usd is None and account.note

    def test_the_user_that_ssh_logs_in_as(self, rented: Rented) -> None:
        made = rented.running()
        assert made.user == "ubuntu"
        (told,) = provider_of(rented.cloud, user="root").list().instances
        assert told.user == "root"

    def rent_without_a_mark(self, rented: Rented) -> None:
        public_key = " ".join(rented.public_key.split()[:2]) + " me@laptop"
        rented.ask(
            "POST",
            "/v1/instances/create",
            {
                "gpu_type": "a6000",
                "num_gpus": 1,
                "cpu_cores": 6,
                "disk_size_gb": 100,
                "template": "base",
                "public_key": public_key,
            },
        )
