"""What there is to rent, over all providers, and what of it a phase may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from orchestrator.core.gpus import suggest
from orchestrator.core.offer import ANY_GPU, Need, Offer, rank
from orchestrator.core.spec import Job
from orchestrator.errors import NoCapacity, ProviderError
from orchestrator.ports import Provider

MOST_OFFERS = 256


def gather(
    providers: Mapping[str, Provider], need: Need
) -> tuple[tuple[Offer, ...], dict[str, str]]:
    """The offers that fit, cheapest first, and why each provider that told none could not."""
    found: list[Offer] = []
    troubles: dict[str, str] = {}
    for name, provider in providers.items():
        try:
            found += provider.offers(need)
        except ProviderError as error:
            troubles[name] = error.message
    return rank(found, "cheapest", ()), troubles


def find_offers(job: Job, need: Need, providers: Mapping[str, Provider]) -> tuple[Offer, ...]:
    """What a phase may rent, best first. Raises NoCapacity; the provider's own error when none of
    them could be asked."""
    found: list[Offer] = []
    troubles: dict[str, ProviderError] = {}
    for name in job.resources.providers:
        try:
            found += providers[name].offers(need)
        except ProviderError as error:
            troubles[name] = error
    in_stock = [offer for offer in found if offer.stock != "NONE"]
    ceiling = job.budget.usd_per_hour
    fitting = [offer for offer in in_stock if ceiling is None or offer.usd_per_hour <= ceiling]
    if fitting:
        return rank(fitting, job.resources.order, job.resources.providers)[:MOST_OFFERS]
    if len(troubles) == len(job.resources.providers):
        raise next(iter(troubles.values()))
    why = [f"{name}: {error.message}" for name, error in troubles.items()]
    if in_stock:
        cheapest = min(offer.usd_per_hour for offer in in_stock)
        why.insert(0, f"the cheapest costs ${cheapest:.2f}/h and ${ceiling}/h is allowed")
    elif found:
        why.insert(0, f"{len(found)} offers are out of stock")
    wanted = " or ".join(f"{gpu}:{count}" for gpu, count in need.gpus)
    raise NoCapacity(
        "; ".join([f"no offer of {', '.join(job.resources.providers)} fits {wanted}", *why]),
        hint=_what_else(need, providers, job.resources.providers),
    )


def _what_else(need: Need, providers: Mapping[str, Provider], names: Sequence[str]) -> str:
    """GPUs with a name like the one that was asked for, from what is rented out at all."""
    known: set[str] = set()
    for name in names:
        with suppress(ProviderError):
            anything = Need(gpus=((ANY_GPU, 1),), disk_gb=1)
            known |= {offer.gpu for offer in providers[name].offers(anything)}
    close = [each for gpu, _ in need.gpus for each in suggest(gpu, known)]
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{meant}`gpujob offers` lists what there is; `local` offers cpu:N"
