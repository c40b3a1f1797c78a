"""What every Provider promises (`orchestrator/ports.py`); an adapter's test class inherits it
and gives the fixtures `provider`, `need` and `public_key`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.boxes import until

from orchestrator.core.gpus import fits
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
        assert len({offer.id for offer in offers}) == len(offers)
        for offer in offers:
            assert any(fits(gpu, offer.gpu) and offer.count == n for gpu, n in need.gpus)
            assert 0 <= offer.usd_per_hour < 1000
            assert offer.disk_gb >= need.disk_gb

    def test_nothing_fits_a_gpu_that_does_not_exist(self, provider: Provider) -> None:
        assert not provider.offers(Need(gpus=(("Abacus-1GB", 3),), disk_gb=1))

    def test_a_created_instance_carries_its_mark_and_comes_to_run(
        self, provider: Provider, again: Provider, need: Need, public_key: str
    ) -> None:
        request = _request(provider, need, public_key, "one")
        made = provider.create(request)
        told = _running(again, made)
        assert (told.mark, told.state, told.phase) == ("gpujob-one", "RUNNING", "ready")
        assert told.host and told.port and told.user and told.restart_marker
        assert told.usd_per_hour == pytest.approx(request.offer.usd_per_hour)

    def test_what_boots_is_pending_in_a_phase_that_has_a_deadline(
        self, provider: Provider, need: Need, public_key: str
    ) -> None:
        made = provider.create(_request(provider, need, public_key, "one"))
        while (told := _find(provider, made)) and told.state == "PENDING":
            assert provider.capabilities.boot_s[told.phase] > 0
        assert told and told.state == "RUNNING"

    def test_a_box_that_is_looked_at_twice_was_not_restarted(
        self, provider: Provider, again: Provider, need: Need, public_key: str
    ) -> None:
        made = provider.create(_request(provider, need, public_key, "one"))
        first = _running(provider, made)
        second = _find(again, made)
        assert second == first

    def test_two_creates_are_two_instances(
        self, provider: Provider, need: Need, public_key: str
    ) -> None:
        first = provider.create(_request(provider, need, public_key, "one"))
        second = provider.create(_request(provider, need, public_key, "two"))
        assert first != second
        assert until(lambda: _ids(provider) == {first, second})
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
        _running(provider, made)
        keys = provider.host_keys(made)
        assert bool(keys) == provider.capabilities.host_keys
        assert all(key.startswith(("ssh-", "ecdsa-", "SHA256:")) for key in keys)

    def test_a_key_may_be_given_again(
        self, provider: Provider, need: Need, public_key: str
    ) -> None:
        made = provider.create(_request(provider, need, public_key, "one"))
        told = _running(provider, made)
        provider.ensure_access(made, public_key)
        provider.ensure_access(made, public_key)
        assert _find(provider, made) == told

    def test_what_the_machine_printed_is_bounded(
        self, provider: Provider, need: Need, public_key: str
    ) -> None:
        made = provider.create(_request(provider, need, public_key, "one"))
        _running(provider, made)
        assert len(provider.logs(made).encode()) <= 64 * 1024
        assert provider.logs("no-such") == ""

    def test_a_way_to_stop_itself_is_there_as_it_says(self, provider: Provider) -> None:
        stop = provider.self_stop("some-id")
        assert (stop is not None) == provider.capabilities.self_stop
        assert stop is None or (stop.token_variable and "some-id" in stop.url)

    def test_the_account_is_told(self, provider: Provider) -> None:
        account = provider.account()
        assert account.provider == provider.name
        assert account.who

    def test_a_listing_is_dated(self, provider: Provider) -> None:
        assert provider.list().listed_at.utcoffset() is not None


def _request(provider: Provider, need: Need, public_key: str, name: str) -> CreateRequest:
    offer = provider.offers(need)[0]
    return CreateRequest(name, f"gpujob-{name}", offer, public_key, need.disk_gb)


def _ids(provider: Provider) -> set[str]:
    return {each.provider_id for each in provider.list().instances}


def _find(provider: Provider, provider_id: str) -> ProviderInstance | None:
    found = [each for each in provider.list().instances if each.provider_id == provider_id]
    return found[0] if found else None


def _running(provider: Provider, provider_id: str) -> ProviderInstance:
    def is_running() -> bool:
        found = _find(provider, provider_id)
        return found is not None and found.state == "RUNNING"

    assert until(is_running, min(30.0, provider.capabilities.boot_deadline_s))
    told = _find(provider, provider_id)
    assert told is not None
    return told
