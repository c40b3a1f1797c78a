"""What there is to rent, over all providers."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.offer import Need, Offer, rank
from orchestrator.errors import ProviderError
from orchestrator.ports import Provider


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
