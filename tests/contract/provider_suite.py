"""What every Provider promises (`orchestrator/ports.py`); an adapter's test class inherits it
and gives the fixtures `provider`, `need` and `public_key`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.boxes import until

from orchestrator.core.offer import Need
from orchestrator.ports import CreateRequest, Provider, ProviderInstance


class ProviderSuite:
    """The provider given is fresh: it lists nothing of ours."""

    @pytest.fixture
    def provider(self) -> Iterator[Provider]:
        raise NotImplementedError

    @pytest.fixture
    def again(self, provider: Provider) -> Provider:
        """The same provider as another process sees it: nothing in memory."""
        raise NotImplementedError

    @pytest.fixture
    def need(self) -> Need:
        raise NotImplementedError

    @pytest.fixture
    def public_key(self) -> str:
        raise NotImplementedError

    def test_offers_name_the_provider_and_what_was_asked(
        self, provider: Provider, need: Need
    ) -> None:
        offers = provider.offers(need)
        assert offers
        assert {offer.provider for offer in offers} == {provider.name}
        assert {(offer.gpu, offer.count) for offer in offers} <= set(need.gpus)
        assert all(offer.usd_per_hour >= 0 for offer in offers)

    def test_nothing_fits_a_gpu_that_does_not_exist(self, provider: Provider) -> None:
        assert not provider.offers(Need(gpus=(("Abacus-1GB", 3),), disk_gb=1))

    def test_a_created_instance_carries_its_mark_and_comes_to_run(
        self, provider: Provider, again: Provider, need: Need, public_key: str
    ) -> None:
        made = provider.create(_request(provider, need, public_key, "one"))
        told = _running(again, made)
        assert (told.mark, told.state) == ("gpujob-one", "RUNNING")
        assert told.host and told.port and told.user and told.restart_marker
        assert told.usd_per_hour == provider.offers(need)[0].usd_per_hour

    def test_two_creates_are_two_instances(
        self, provider: Provider, need: Need, public_key: str
    ) -> None:
        first = provider.create(_request(provider, need, public_key, "one"))
        second = provider.create(_request(provider, need, public_key, "two"))
        assert first != second
        marks = {each.provider_id: each.mark for each in provider.list().instances}
        assert marks == {first: "gpujob-one", second: "gpujob-two"}

    def test_the_end_of_one_leaves_the_other(
        self, provider: Provider, need: Need, public_key: str
    ) -> None:
        first = provider.create(_request(provider, need, public_key, "one"))
        second = provider.create(_request(provider, need, public_key, "two"))
        provider.terminate(first)
        assert until(lambda: _ids(provider) == {second})

    def test_ending_is_repeatable_and_gone_is_success(
        self, provider: Provider, again: Provider, need: Need, public_key: str
    ) -> None:
        made = provider.create(_request(provider, need, public_key, "one"))
        provider.terminate(made)
        provider.terminate(made)
        again.terminate(made)
        assert until(lambda: not _ids(again))

    @pytest.mark.parametrize("name", ["", "no-such", "../..", "local-00000000"])
    def test_ending_what_never_was_changes_nothing(
        self, provider: Provider, need: Need, public_key: str, name: str
    ) -> None:
        made = provider.create(_request(provider, need, public_key, "one"))
        provider.terminate(name)
        assert _ids(provider) == {made}

    def test_the_host_keys_told_are_public_keys(
        self, provider: Provider, need: Need, public_key: str
    ) -> None:
        made = provider.create(_request(provider, need, public_key, "one"))
        keys = provider.host_keys(made)
        assert bool(keys) == provider.capabilities.host_keys
        assert all(key.split()[0].startswith(("ssh-", "ecdsa-")) for key in keys)

    def test_a_listing_is_dated(self, provider: Provider) -> None:
        assert provider.list().listed_at.utcoffset() is not None


def _request(provider: Provider, need: Need, public_key: str, name: str) -> CreateRequest:
    offer = provider.offers(need)[0]
    return CreateRequest(name, f"gpujob-{name}", offer, public_key, need.disk_gb)


def _ids(provider: Provider) -> set[str]:
    return {each.provider_id for each in provider.list().instances}


def _running(provider: Provider, provider_id: str) -> ProviderInstance:
    def find() -> ProviderInstance | None:
        found = [each for each in provider.list().instances if each.provider_id == provider_id]
        return found[0] if found and found[0].state == "RUNNING" else None

    assert until(lambda: find() is not None, provider.capabilities.boot_deadline_s)
    told = find()
    assert told is not None
    return told
