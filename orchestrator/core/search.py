"""Which offer is asked for next, and when the search for an instance has failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from orchestrator.core.offer import Offer
from orchestrator.core.run import Instance, Outcome, Run

UNANSWERED_TRIES = 4
BOOT_TRIES = 3
FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 600.0


def free_offers(run: Run, offers: Iterable[Offer]) -> list[Offer]:
    """The offers that may still be asked for in this round: those whose boxes came up as far as
    anyone knows before those where one failed to, and best first among each."""
    tried = run.tried
    closed = {each.provider for each in tried if each.refused and each.refused.provider_wide}
    unanswered = [each.provider for each in tried if _is_unanswered(each)]
    closed |= {name for name in unanswered if unanswered.count(name) >= UNANSWERED_TRIES}
    spent = {(each.provider, each.offer) for each in tried if _is_refused(each)}
    failed = Counter((each.provider, each.offer) for each in tried if _failed_to_boot(each))
    free = [
        offer
        for offer in offers
        if offer.provider not in closed
        and (offer.provider, offer.id) not in spent
        and failed[offer.provider, offer.id] < BOOT_TRIES
    ]
    return sorted(free, key=lambda offer: failed[offer.provider, offer.id])


def ended_search(
    run: Run, offers: tuple[Offer, ...], now: datetime, wait_s: float
) -> Outcome | None:
    """Why the run ends when nothing could be rented; None while there is hope.

    A run that has not trained yet ends at once: a person is there to choose otherwise. One that
    has goes on looking for `wait_s`, which costs nothing."""
    if run.instance is not None or not run.tried or free_offers(run, offers):
        return None
    began_at = run.search.began_at or now
    if run.attempts and now - began_at < timedelta(seconds=wait_s):
        return None
    why = "no offer could be rented; " + "; ".join(_reasons(run))
    return Outcome("FAILED", why, _code(run))


def next_round_at(run: Run, now: datetime) -> datetime:
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**run.search.rounds)
    return now + timedelta(seconds=pause_s)


def _is_refused(instance: Instance) -> bool:
    return instance.refused is not None and instance.refused.why in ("no_capacity", "refused")


def _failed_to_boot(instance: Instance) -> bool:
    return instance.lost is not None and not instance.booted


def _is_unanswered(instance: Instance) -> bool:
    return instance.refused is not None and instance.refused.why in ("transient", "absent")


def _reasons(run: Run) -> list[str]:
    """Each provider's words, newest first, none twice."""
    said = [
        f"{each.provider}: {each.refused.message if each.refused else each.lost}"
        for each in reversed(run.tried)
        if each.refused or each.lost
    ]
    return list(dict.fromkeys(said))[:4]


def _code(run: Run) -> str:
    whys = {each.refused.why for each in run.tried if each.refused}
    return "capacity" if "no_capacity" in whys else "provider"
