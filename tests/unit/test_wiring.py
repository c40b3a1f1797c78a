"""Settings reach the providers that are rented over the internet, and keys stay where they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.clock import ManualClock

from orchestrator.core.offer import Need
from orchestrator.errors import Refused
from orchestrator.providers import Providers
from orchestrator.settings import VENDORS, load_settings
from orchestrator.wiring.clouds import make_providers, other_addresses, usable_providers

SECRET = "rpa_VERYSECRET0123456789"
CLOUDS = tuple(VENDORS)


def providers(home: Path, text: str = "", **environ: str) -> Providers:
    (home / "config.toml").write_text(text)
    settings = load_settings({"GPUJOB_HOME": str(home), **environ})
    return make_providers(settings, ManualClock())


@pytest.mark.parametrize("name", CLOUDS)
def test_a_pace_of_the_users_own(tmp_path: Path, name: str) -> None:
    plain = providers(tmp_path)[name].capabilities
    text = f"[{name}]\npoll_s = 1.5\nlisting_lag_s = 0\nstart_s = 77\n"
    paced = providers(tmp_path, text)[name].capabilities
    assert (paced.poll_s, paced.listing_lag_s, paced.boot_s["starting"]) == (1.5, 0, 77)
    assert paced.idle_poll_s == plain.idle_poll_s
    assert paced.boot_s["assigning"] == plain.boot_s["assigning"]
    assert (paced.self_stop, paced.billing_unit_s) == (plain.self_stop, plain.billing_unit_s)


@pytest.mark.parametrize("name", CLOUDS)
def test_without_a_key_nobody_is_asked_for_offers(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match=f"there is no key for {name}") as error:
        providers(tmp_path)[name].offers(Need((("A40", 1),), 1))
    assert error.value.provider_wide


@pytest.mark.parametrize("name", CLOUDS)
def test_a_key_is_in_no_repr_of_what_carries_it(tmp_path: Path, name: str) -> None:
    made = providers(tmp_path, **{VENDORS[name].key_variable: SECRET})
    assert SECRET not in repr(made[name]) + repr(vars(made[name])) + repr(made)


def test_who_can_be_asked(tmp_path: Path) -> None:
    settings = load_settings(
        {"GPUJOB_HOME": str(tmp_path), "TNR_API_TOKEN": SECRET, "TNR_API_URL": "http://h:1"}
    )
    usable, unasked = usable_providers(settings)
    assert (list(usable), list(unasked)) == (["local", "thunder"], ["runpod"])
    assert "RUNPOD_API_KEY" in unasked["runpod"]
    assert other_addresses(settings, ["local", "runpod", "thunder"]) == {"thunder": "http://h:1"}
