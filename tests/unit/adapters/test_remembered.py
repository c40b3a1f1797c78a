"""Prices of last time: told when the provider cannot be, with the time of then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from kit.clock import ManualClock

from orchestrator.adapters.local import LocalProvider
from orchestrator.adapters.remembered import RememberedOffers
from orchestrator.core.offer import ANY_GPU, Need, Offer
from orchestrator.errors import GpujobError, NoCapacity, Refused, Transient

A40 = Offer("local", "a40-eu", "A40", 1, 9, 50, 100, 0.4, region="EU", cloud="secure")
A40_US = replace(A40, id="a40-us", region="US", cloud="community", vcpus=4)
H100 = Offer("local", "h100", "H100", 2, 0, 0, 100, 6.0, region="EU")


class Shop(LocalProvider):
    """The local provider with a window of its own; `trouble` is raised instead."""

    stock: tuple[Offer, ...] = (A40, A40_US, H100)
    trouble: GpujobError | None = None

    def offers(self, need: Need) -> Sequence[Offer]:
        if self.trouble:
            raise self.trouble
        wanted = dict(need.gpus)
        return [
            each
            for each in self.stock
            if wanted.get(each.gpu, wanted.get(ANY_GPU)) == each.count
            and need.region in ("", each.region)
        ]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shop(tmp_path: Path, clock: ManualClock) -> Shop:
    return Shop(tmp_path / "local", clock=clock)


def need(name: str = "A40", count: int = 1, **more: str | int) -> Need:
    return replace(Need(((name, count),), 10), **more)


def ids(offers: Sequence[Offer]) -> list[str]:
    return sorted(offer.id for offer in offers)


def test_offers_are_stamped_and_told_again_when_the_network_is_down(
    tmp_path: Path, shop: Shop, clock: ManualClock
) -> None:
    told = RememberedOffers(shop, tmp_path, clock).offers(need())
    then = clock.now()
    assert [offer.seen_at for offer in told] == [then, then]
    clock.advance(3600)
    shop.trouble = Transient("the network is down")
    again = RememberedOffers(shop, tmp_path, clock).offers(need())
    assert ids(again) == ["a40-eu", "a40-us"]
    assert {offer.seen_at for offer in again} == {then}


def test_nothing_remembered_is_the_trouble_itself(
    tmp_path: Path, shop: Shop, clock: ManualClock
) -> None:
    RememberedOffers(shop, tmp_path, clock).offers(need("A40"))
    shop.trouble = Transient("the network is down")
    with pytest.raises(Transient, match="network"):
        RememberedOffers(shop, tmp_path, clock).offers(need("H100", 2))


@pytest.mark.parametrize("trouble", [Refused("wrong key"), NoCapacity("none")], ids=["no", "none"])
def test_a_refusal_is_never_hidden_from_a_launch(
    tmp_path: Path, shop: Shop, clock: ManualClock, trouble: GpujobError
) -> None:
    RememberedOffers(shop, tmp_path, clock).offers(need())
    shop.trouble = trouble
    with pytest.raises(type(trouble)):
        RememberedOffers(shop, tmp_path, clock).offers(need())


def test_a_look_without_a_key_is_served_from_memory_and_asks_nobody(
    tmp_path: Path, shop: Shop, clock: ManualClock
) -> None:
    RememberedOffers(shop, tmp_path, clock).offers(need())

    def no_key() -> None:
        raise Refused("there is no key")

    shop.trouble = AssertionError("was asked")  # type: ignore[assignment]
    offline = RememberedOffers(shop, tmp_path, clock, ready=no_key, offline=True)
    assert ids(offline.offers(need())) == ["a40-eu", "a40-us"]
    with pytest.raises(Refused):
        RememberedOffers(shop, tmp_path, clock, ready=no_key).offers(need())


NARROW = {
    "a region": (need(region="US"), ["a40-us"]),
    "a cloud": (need(cloud="secure"), ["a40-eu"]),
    "cores": (need(vcpus=8), ["a40-eu"]),
    "memory": (need(ram_gb=51), None),
    "memory that is not told": (need("H100", 2, ram_gb=999), ["h100"]),
    "a region in other letters": (need(region="us"), ["a40-us"]),
    "another count": (need(count=2), None),
    "a part of its name": (need("a40"), ["a40-eu", "a40-us"]),
    "every GPU": (need(ANY_GPU, 2), ["h100"]),
    "alternatives": (Need((("A40", 1), ("H100", 2)), 10), ["a40-eu", "a40-us", "h100"]),
}


@pytest.mark.parametrize("case", NARROW)
def test_what_is_remembered_has_to_fit(
    tmp_path: Path, shop: Shop, clock: ManualClock, case: str
) -> None:
    wanted, expected = NARROW[case]
    memory = RememberedOffers(shop, tmp_path, clock)
    memory.offers(Need(((ANY_GPU, 1), ("H100", 2)), 10))
    memory.offers(need("A40"))
    shop.trouble = Transient("down")
    if expected is None:
        with pytest.raises(Transient):
            memory.offers(wanted)
    else:
        assert ids(memory.offers(wanted)) == expected


def test_a_narrow_question_forgets_nothing_and_a_plain_one_what_is_gone(
    tmp_path: Path, shop: Shop, clock: ManualClock
) -> None:
    memory = RememberedOffers(shop, tmp_path, clock)
    memory.offers(need())
    shop.stock = (replace(A40, usd_per_hour=0.5),)
    memory.offers(need(region="EU"))
    shop.trouble = Transient("down")
    assert {o.id: o.usd_per_hour for o in memory.offers(need())} == {"a40-eu": 0.5, "a40-us": 0.4}
    shop.trouble = None
    memory.offers(need())
    shop.trouble = Transient("down")
    assert ids(memory.offers(need())) == ["a40-eu"]


@pytest.mark.parametrize(
    "text", ["", "{torn", "[]", '{"v": 9, "offers": []}', '{"v": 1, "offers": [{}]}'], ids=range(5)
)
def test_a_memory_that_cannot_be_read_is_none(
    tmp_path: Path, shop: Shop, clock: ManualClock, text: str
) -> None:
    (tmp_path / "local.json").write_text(text)
    memory = RememberedOffers(shop, tmp_path, clock)
    shop.trouble = Transient("down")
    with pytest.raises(Transient):
        memory.offers(need())
    shop.trouble = None
    assert memory.offers(need())


def test_a_memory_that_cannot_be_written_hides_no_price(
    tmp_path: Path, shop: Shop, clock: ManualClock
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert ids(RememberedOffers(shop, tmp_path / "file", clock).offers(need())) == [
        "a40-eu",
        "a40-us",
    ]


def test_everything_else_is_the_providers_own(
    tmp_path: Path, shop: Shop, clock: ManualClock
) -> None:
    memory = RememberedOffers(shop, tmp_path, clock)
    assert (memory.name, memory.capabilities) == (shop.name, shop.capabilities)
    assert memory.list() == shop.list()
    assert memory.account() == shop.account()
    assert memory.self_stop("x") is None
    memory.terminate("local-00000000")
    with pytest.raises(Transient, match="local-00000000"):
        memory.host_keys("local-00000000")
