"""A provider that is rented over HTTP sits the suite of every provider against its emulated cloud,
a process of its own; the account of that cloud says what was rented."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from kit.boxes import keygen, until
from kit.cloud import Cloud
from provider_suite import ProviderSuite

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.http import Api, Rate
from orchestrator.adapters.runpod import RunPodProvider
from orchestrator.adapters.thunder import ThunderProvider
from orchestrator.core.offer import Need
from orchestrator.errors import ProviderError, Refused, Transient
from orchestrator.ports import CreateRequest, Provider, ProviderInstance

TIMEOUT_S = 3.0
NEEDS: Mapping[str, Need] = {
    "runpod": Need(gpus=(("A40", 2), ("H100-SXM", 1)), disk_gb=20),
    "thunder": Need(gpus=(("A6000", 1), ("A100-80GB", 2)), disk_gb=20),
}
MAKERS: Mapping[str, Callable[..., Provider]] = {
    "runpod": RunPodProvider,
    "thunder": ThunderProvider,
}


def provider_of(cloud: Cloud, *, key: str = "", **options: Any) -> Provider:
    """The adapter as it is wired, but for its patience."""
    clock = SystemClock()
    api = Api(
        cloud.url,
        token=lambda: key or cloud.key,
        user_agent="gpujob/contract",
        rate=Rate(clock, per_minute=100_000),
        timeout_s=TIMEOUT_S,
    )
    return MAKERS[cloud.kind](api, clock, **options)


@dataclass(frozen=True)
class Rented:
    """One account, its provider, and a key that opens its boxes."""

    cloud: Cloud
    provider: Provider
    public_key: str

    def request(self, name: str = "one") -> CreateRequest:
        need = NEEDS[self.cloud.kind]
        offer = min(self.provider.offers(need), key=lambda each: (each.usd_per_hour, each.id))
        return CreateRequest(name, f"gpujob-{name}", offer, self.public_key, need.disk_gb)

    def create(self, name: str = "one") -> str:
        return self.provider.create(self.request(name))

    def find(self, provider_id: str) -> ProviderInstance | None:
        found = self.provider.list().instances
        return next((each for each in found if each.provider_id == provider_id), None)

    def running(self, name: str = "one") -> ProviderInstance:
        made = self.create(name)

        def is_running() -> bool:
            found = self.find(made)
            return found is not None and found.state == "RUNNING"

        assert until(is_running)
        told = self.find(made)
        assert told is not None
        return told

    def marks(self) -> list[str]:
        """What the account holds, whatever is listed."""
        return sorted(each["mark"] for each in self.cloud.instances())

    def ask(self, method: str, path: str, body: Any, *, key: str = "") -> None:
        """Of the vendor, and not through the adapter."""
        headers = {"Authorization": f"Bearer {key or self.cloud.key}", "User-Agent": "a person"}
        url = httpx.URL(self.cloud.url).join(path)
        httpx.request(method, url, json=body, headers=headers).raise_for_status()

    def refused(self, error: type[ProviderError]) -> ProviderError:
        """How a create fails."""
        with pytest.raises(error) as raised:
            self.create()
        assert type(raised.value) is error
        return raised.value


class CloudSuite(ProviderSuite):
    kind: str
    revoked: str  # the fault that takes the key's rights away

    @pytest.fixture
    def cloud(self, tmp_path: Path) -> Iterator[Cloud]:
        cloud = Cloud.start(
            tmp_path / "cloud",
            self.kind,
            boxes="none",
            boot_s=0.3,
            endpoint_s=0.2,
            requests_per_minute=100_000,
        )
        try:
            yield cloud
            assert cloud.violations() == []
        finally:
            cloud.close()

    @pytest.fixture
    def provider(self, cloud: Cloud) -> Provider:  # type: ignore[override]
        return provider_of(cloud)

    @pytest.fixture
    def again(self, cloud: Cloud) -> Provider:
        return provider_of(cloud)

    @pytest.fixture
    def need(self) -> Need:
        return NEEDS[self.kind]

    @pytest.fixture
    def public_key(self, tmp_path: Path) -> str:
        return keygen(tmp_path / "key")

    @pytest.fixture
    def rented(self, cloud: Cloud, provider: Provider, public_key: str) -> Rented:
        return Rented(cloud, provider, public_key)

    @pytest.mark.parametrize("verb", ["list", "account"])
    def test_a_wrong_key_is_refused_for_the_whole_provider(self, cloud: Cloud, verb: str) -> None:
        with pytest.raises(Refused) as error:
            getattr(provider_of(cloud, key="stranger-0123456789"), verb)()
        assert error.value.provider_wide and error.value.hint
        assert "stranger" not in str(error.value)

    def test_a_revoked_key_makes_nothing_look_gone(self, rented: Rented) -> None:
        rented.create()
        rented.cloud.fault(self.revoked)
        with pytest.raises(Refused):
            rented.provider.list()

    def test_a_list_that_cannot_be_read_makes_nothing_look_gone(self, rented: Rented) -> None:
        made = rented.create()
        rented.cloud.fault("html-502")
        with pytest.raises(Transient):
            rented.provider.list()
        assert rented.find(made)

    def test_a_boot_goes_through_its_phases(self, rented: Rented) -> None:
        made = rented.create()
        seen: list[str] = []

        def is_ready() -> bool:
            found = rented.find(made)
            assert found is not None
            assert (found.phase == "ready") == (found.state == "RUNNING") == bool(found.host)
            seen.append(found.phase)
            return found.phase == "ready"

        assert until(is_ready)
        order = ["assigning", "starting", "endpoint", "ready"]
        assert [order.index(each) for each in seen] == sorted(order.index(each) for each in seen)

    def test_what_others_rented_is_not_ours(self, rented: Rented) -> None:
        self.rent_without_a_mark(rented)
        assert len(rented.cloud.instances()) == 1
        assert rented.provider.list().instances == ()

    def test_the_settings_of_the_user_are_the_capabilities(self, cloud: Cloud) -> None:
        able = provider_of(cloud).capabilities
        other = provider_of(cloud, capabilities=type(able)(poll_s=1.5))
        assert other.capabilities.poll_s == 1.5

    def rent_without_a_mark(self, rented: Rented) -> None:
        """As a person does in the console."""
        raise NotImplementedError
