"""Instances that bill and should not: found by their marks, ended when asked, proven gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.marks import Marked, Owner, owner_of
from orchestrator.core.run import Run
from orchestrator.errors import ProviderError
from orchestrator.ports import Clock, Ledger, Listing, Provider


@dataclass(frozen=True)
class Survey:
    """What carries a mark. `unknown` says why a provider could not be listed: nothing is known
    about what it rents out."""

    marked: tuple[Marked, ...]
    unknown: Mapping[str, str]

    def of(self, owner: Owner) -> tuple[Marked, ...]:
        return tuple(each for each in self.marked if each.owner == owner)


def survey(providers: Mapping[str, Provider], open_ledger: Callable[[], Ledger]) -> Survey:
    """List every provider, then read the ledger, in this order: an intent is on record before its
    instance exists, so what is listed and no live run owns in a later reading is an orphan.

    Raises LedgerError, and then whose they are is not known of any."""
    listings, unknown = _list_all(providers)
    ledger = open_ledger()
    live = _live_marks(ledger.runs())
    marked = [
        Marked(name, it.provider_id, it.mark, owner, it.state, it.created_at, it.usd_per_hour)
        for name, listing in listings.items()
        for it in listing.instances
        if (owner := owner_of(it.mark, ledger.id, live))
    ]
    return Survey(tuple(marked), unknown)


def end(
    orphans: Sequence[Marked], providers: Mapping[str, Provider], clock: Clock, *, wait_s: float
) -> dict[Marked, str]:
    """Terminate the orphans and list until each is proven gone, at most `wait_s`; those that are
    not by then, with the last trouble of each."""
    absent: dict[Marked, float] = {}
    trouble: dict[Marked, str] = {}
    left = list(orphans)
    deadline = clock.monotonic() + wait_s
    while True:
        for each in left:
            if each not in absent:
                trouble[each] = _terminate(each, providers[each.provider])
        _look(left, providers, absent, clock.monotonic())
        left = [each for each in left if not _is_gone(each, providers, absent, clock.monotonic())]
        rest_s = deadline - clock.monotonic()
        if not left or rest_s <= 0:
            return {each: trouble[each] for each in left}
        polls = [providers[each.provider].capabilities.poll_s for each in left]
        clock.wait(min(rest_s, *polls))


def _list_all(providers: Mapping[str, Provider]) -> tuple[dict[str, Listing], dict[str, str]]:
    listings, unknown = {}, {}
    for name, provider in providers.items():
        try:
            listings[name] = provider.list()
        except ProviderError as error:
            unknown[name] = error.message
    return listings, unknown


def _live_marks(runs: Iterable[Run]) -> frozenset[str]:
    return frozenset(each.mark for run in runs if not run.terminal for each in run.instances)


def _terminate(marked: Marked, provider: Provider) -> str:
    try:
        provider.terminate(marked.provider_id)
    except ProviderError as error:
        return error.message
    return "its provider still lists it"


def _look(
    left: Sequence[Marked],
    providers: Mapping[str, Provider],
    absent: dict[Marked, float],
    now_s: float,
) -> None:
    """Since when each is missing; a listing that failed says nothing either way."""
    listings, _ = _list_all({each.provider: providers[each.provider] for each in left})
    for each in left:
        listing = listings.get(each.provider)
        if listing is None:
            continue
        if each.provider_id in {it.provider_id for it in listing.instances}:
            absent.pop(each, None)
        else:
            absent.setdefault(each, now_s)


def _is_gone(
    each: Marked, providers: Mapping[str, Provider], absent: Mapping[Marked, float], now_s: float
) -> bool:
    able = providers[each.provider].capabilities
    return each in absent and now_s - absent[each] >= able.absent_s
