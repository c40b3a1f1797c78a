"""Settings to providers: which there are, and what opens each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from orchestrator.core.checks import Check, Probe
from orchestrator.core.offer import BootPhase
from orchestrator.credentials import Credentials
from orchestrator.errors import GpujobError
from orchestrator.ports import Capabilities, Clock, Provider
from orchestrator.providers import Providers
from orchestrator.settings import VENDORS, Pace, Settings
from orchestrator.version import VERSION
from orchestrator.wiring.ledger import make_clock

if TYPE_CHECKING:
    from orchestrator.adapters.http import Api

USER_AGENT = f"gpujob/{VERSION}"


@dataclass(frozen=True)
class Parts:
    """What a provider is made of. With `offline` one that refuses is planned with from the prices
    that are remembered."""

    settings: Settings
    clock: Clock
    credentials: Credentials
    offline: bool = False


def make_credentials(settings: Settings, *, kept_first: bool = False) -> Credentials:
    return Credentials(settings, _from_keyring, kept_first=kept_first)


def make_providers(
    settings: Settings,
    clock: Clock,
    credentials: Credentials | None = None,
    *,
    offline: bool = False,
) -> Providers:
    parts = Parts(settings, clock, credentials or make_credentials(settings), offline)
    makers = {name: partial(make, parts) for name, make in _MAKERS.items()}
    return Providers(makers, lambda name: parts.credentials.url(name) if name in VENDORS else "")


def usable_providers(
    settings: Settings, names: Collection[str] = ()
) -> tuple[dict[str, Provider], dict[str, str]]:
    """The providers that have a key or need none, of `names` or of all, and why each other one
    cannot be asked."""
    credentials = make_credentials(settings)
    providers = make_providers(settings, make_clock(), credentials)
    usable, unasked = {}, {}
    for name in names or providers:
        try:
            if name in VENDORS:
                credentials.key(name)
            usable[name] = providers[name]
        except GpujobError as error:
            unasked[name] = error.message
    return usable, unasked


def keep_credentials(settings: Settings, names: Iterable[str], renting: Collection[str]) -> None:
    """Leave for the daemon what opens these providers. Raises GpujobError when that would cut
    off those where live runs rent."""
    make_credentials(settings).keep([name for name in names if name in VENDORS], renting)


def other_addresses(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Of these providers, those whose API is asked for elsewhere than at its vendor."""
    credentials = make_credentials(settings)
    urls = {name: credentials.url(name) for name in names if name in VENDORS}
    return {name: url for name, url in urls.items() if url != VENDORS[name].url}


def run_checks(settings: Settings) -> Iterator[Check]:
    """What `doctor` shows, one after the other."""
    from orchestrator.adapters.machine import check_machine
    from orchestrator.adapters.probe import probe
    from orchestrator.flows.doctor import check_embedded, check_rented

    yield from check_machine(settings.state)
    clock, credentials = make_clock(), make_credentials(settings)
    providers = make_providers(settings, clock, credentials)

    def reach(name: str) -> Probe:
        return probe(credentials.url(name), clock, USER_AGENT)

    for name in providers:
        provider = partial(providers.__getitem__, name)
        if name not in VENDORS:
            yield check_embedded(name, provider)
            continue
        yield from check_rented(
            name,
            partial(credentials.source, name),
            partial(reach, name),
            provider,
            credentials.advice(name),
        )


def _make_local(parts: Parts) -> Provider:
    from orchestrator.adapters.local import LocalProvider

    return LocalProvider(
        parts.settings.state / "local",
        clock=parts.clock,
        private_home=parts.settings.private_home,
        usd_per_hour=parts.settings.usd_per_hour,
    )


def _make_runpod(parts: Parts) -> Provider:
    from orchestrator.adapters.runpod import CAPABILITIES, RunPodProvider

    able = _paced(CAPABILITIES, parts.settings.paces["runpod"])
    able = replace(able, volume_s3=parts.settings.volume_urls.get("runpod", able.volume_s3))
    provider = RunPodProvider(_api(parts, "runpod"), parts.clock, capabilities=able)
    return _remembering(parts, provider)


def _make_thunder(parts: Parts) -> Provider:
    from orchestrator.adapters.exclusive import Exclusive
    from orchestrator.adapters.thunder import CAPABILITIES, ThunderProvider

    pace = parts.settings.paces["thunder"]
    able, user = _paced(CAPABILITIES, pace), pace.user or "ubuntu"
    turn = Exclusive(parts.settings.state / "thunder.turn")
    api = _api(parts, "thunder")
    provider = ThunderProvider(api, parts.clock, user=user, capabilities=able, turn=turn)
    return _remembering(parts, provider)


_MAKERS: Mapping[str, Callable[[Parts], Provider]] = {
    "local": _make_local,
    "runpod": _make_runpod,
    "thunder": _make_thunder,
}
PROVIDERS = tuple(_MAKERS)


def _api(parts: Parts, name: str) -> Api:
    from orchestrator.adapters.http import PER_MINUTE, TIMEOUT_S, Api, Rate

    asked = parts.settings.paces[name]
    return Api(
        parts.credentials.url(name),
        token=partial(parts.credentials.key, name),
        user_agent=USER_AGENT,
        rate=Rate(parts.clock, per_minute=asked.requests_per_minute or PER_MINUTE),
        timeout_s=asked.timeout_s or TIMEOUT_S,
    )


def _remembering(parts: Parts, provider: Provider) -> Provider:
    from orchestrator.adapters.remembered import RememberedOffers

    return RememberedOffers(
        provider,
        parts.settings.state / "prices",
        parts.clock,
        ready=partial(parts.credentials.key, provider.name),
        offline=parts.offline,
    )


def _paced(able: Capabilities, pace: Pace) -> Capabilities:
    """The adapter's own words, but for what the user set."""
    boot: Mapping[BootPhase, float | None] = {
        "assigning": pace.assign_s,
        "starting": pace.start_s,
        "endpoint": pace.endpoint_s,
    }
    return replace(
        able,
        poll_s=_else(pace.poll_s, able.poll_s),
        idle_poll_s=_else(pace.idle_poll_s, able.idle_poll_s),
        listing_lag_s=_else(pace.listing_lag_s, able.listing_lag_s),
        absent_s=_else(pace.absent_s, able.absent_s),
        boot_s={**able.boot_s, **{phase: s for phase, s in boot.items() if s is not None}},
    )


def _else(seconds: float | None, default_s: float) -> float:
    return default_s if seconds is None else seconds


@cache
def _from_keyring(provider: str) -> str | None:
    """`keyring set gpujob PROVIDER`, where the package is installed and has a place for keys."""
    from importlib import import_module

    try:
        found = import_module("keyring").get_password("gpujob", provider)
    except ModuleNotFoundError:
        return None
    except Exception:  # a keyring that is locked or has no backend is no keyring; each has its own
        return None
    return found if isinstance(found, str) else None
