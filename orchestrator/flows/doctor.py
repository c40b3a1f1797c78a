"""One provider's health: its key, its API, its clock, its account."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.core.checks import Check, Probe
from orchestrator.errors import GpujobError, Refused
from orchestrator.ports import Account, Provider

SKEW_S = 60.0
LOW_USD = 5.0
NEW_KEY = "make a key in the provider's console that may list, create and delete instances"


def check_rented(
    name: str,
    find_key: Callable[[], str | None],
    probe: Callable[[], Probe],
    provider: Callable[[], Provider],
    advice: str,
) -> Iterator[Check]:
    """A provider that is rented from over the internet. `find_key` says where its key is, never
    what it is; `advice` how to give one."""
    try:
        source = find_key()
    except GpujobError as error:
        yield Check(f"{name} key", "fail", error.message, error.hint or "")
        return
    if source is None:
        yield Check(f"{name} key", "warn", f"none; nothing can be rented from {name}", advice)
        return
    yield Check(f"{name} key", "ok", f"found in {source}")
    reached = probe()
    yield from _answers(name, reached)
    if not reached.trouble:
        yield _account(name, provider)


def check_embedded(name: str, provider: Callable[[], Provider]) -> Check:
    """A provider that needs neither key nor network."""
    return _account(name, provider)


def _answers(name: str, reached: Probe) -> Iterator[Check]:
    what = f"{name} API"
    if reached.trouble:
        found = f"{reached.url} does not answer: {reached.trouble}"
        yield Check(what, "fail", found, "check the network; what runs is not lost, and bills")
        return
    yield Check(what, "ok", f"{reached.url} answers")
    if reached.ahead_s is None:
        return
    ahead_s = reached.ahead_s
    found = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} {name}"
    well = abs(ahead_s) <= SKEW_S
    advice = "" if well else "set this machine's clock: hours and dollars are counted by it"
    yield Check("clock", "ok" if well else "warn", found, advice)


def _account(name: str, provider: Callable[[], Provider]) -> Check:
    what = f"{name} account"
    try:
        account = provider().account()
    except Refused as error:
        return Check(what, "fail", f"the key is refused: {error.message}", error.hint or NEW_KEY)
    except GpujobError as error:
        return Check(what, "fail", error.message, error.hint or "try again")
    words = _words(account)
    if account.balance_usd is not None and account.balance_usd < LOW_USD:
        advice = f"add money: {name} ends what runs when the balance is used up"
        return Check(what, "warn", words, advice)
    return Check(what, "ok", words)


def _words(account: Account) -> str:
    parts = [
        account.who,
        None if account.balance_usd is None else f"balance ${account.balance_usd:.2f}",
        None
        if account.spend_usd_per_hour is None
        else f"spending ${account.spend_usd_per_hour:.2f}/h",
        account.note,
    ]
    return ", ".join(part for part in parts if part)
