"""Offers as a table, and how old what they say is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.core.codec import to_json
from orchestrator.core.offer import Offer
from orchestrator.views.runs import table
from orchestrator.views.words import dollars, duration

HEAD = ("PROVIDER", "GPU", "COUNT", "VCPUS", "RAM", "REGION", "CLOUD", "STOCK", "$/H", "AGE")
# Younger than this was asked for just now.
FRESH_S = 60.0


def offers_table(offers: Sequence[Offer], now: datetime) -> str:
    return table(HEAD, [_row(offer, now) for offer in offers])


def offer_record(offer: Offer, now: datetime) -> dict[str, Any]:
    """One offer for `--json`; `age_s` is null for a price that never changes."""
    seconds = _age_s(offer, now)
    return {**to_json(offer), "age_s": None if seconds is None else round(seconds, 1)}


def offer_place(offer: Offer) -> str:
    """Where, of which cloud and how much of it there is: "EU-RO-1, secure, stock LOW"."""
    parts = [offer.region, offer.cloud, "" if offer.stock == "UNKNOWN" else f"stock {offer.stock}"]
    return ", ".join(part for part in parts if part)


def offer_age(offer: Offer, now: datetime) -> str:
    """ " (3h20m old)" for a price that is remembered, nothing for one of just now."""
    seconds = _age_s(offer, now) or 0.0
    return "" if seconds < FRESH_S else f" ({duration(seconds)} old)"


def _age_s(offer: Offer, now: datetime) -> float | None:
    return max(0.0, (now - offer.seen_at).total_seconds()) if offer.seen_at else None


def _row(offer: Offer, now: datetime) -> Sequence[str]:
    seconds = _age_s(offer, now)
    return (
        offer.provider,
        offer.gpu,
        str(offer.count),
        str(offer.vcpus or "-"),
        f"{offer.ram_gb} GB" if offer.ram_gb else "-",
        offer.region or "-",
        offer.cloud or "-",
        offer.stock,
        dollars(offer.usd_per_hour),
        "-" if seconds is None else "now" if seconds < FRESH_S else duration(seconds),
    )
