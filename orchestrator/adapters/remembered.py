"""The last prices of a provider, kept in a file, for when it cannot be asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.adapters.durable import make_folder, write_whole
from orchestrator.core.gpus import fits
from orchestrator.core.offer import Need, Offer
from orchestrator.errors import Refused, Transient
from orchestrator.ports import Account, Clock, CreateRequest, Listing, Provider, SelfStop

VERSION = 1


class RememberedOffers:
    """A Provider like the one given, which remembers its offers in `<folder>/<name>.json`.

    `offers` stamps what it was told with the time, and answers what is remembered, with the time
    of then, when the provider cannot be reached; `offline` also when it refuses, for a look at
    prices without a key. Everything else is the provider's own. `ready` is called before offers
    are asked for and may raise Refused.
    """

    def __init__(
        self,
        provider: Provider,
        folder: Path,
        clock: Clock,
        *,
        ready: Callable[[], object] = lambda: None,
        offline: bool = False,
    ) -> None:
        self.name = provider.name
        self.capabilities = provider.capabilities
        self._provider = provider
        self._path = folder / f"{provider.name}.json"
        self._clock = clock
        self._ready = ready
        self._forgiven = (Transient, Refused) if offline else (Transient,)

    def offers(self, need: Need) -> Sequence[Offer]:
        try:
            self._ready()
            told = self._provider.offers(need)
        except self._forgiven:
            remembered = _fitting(self._remembered(), need)
            if not remembered:
                raise
            return remembered
        now = self._clock.now()
        stamped = [each if each.seen_at else replace(each, seen_at=now) for each in told]
        self._remember(stamped, need)
        return stamped

    def create(self, request: CreateRequest) -> str:
        return self._provider.create(request)

    def list(self) -> Listing:
        return self._provider.list()

    def terminate(self, provider_id: str) -> None:
        self._provider.terminate(provider_id)

    def ensure_access(self, provider_id: str, public_key: str) -> None:
        self._provider.ensure_access(provider_id, public_key)

    def host_keys(self, provider_id: str) -> Sequence[str]:
        return self._provider.host_keys(provider_id)

    def logs(self, provider_id: str) -> str:
        return self._provider.logs(provider_id)

    def account(self) -> Account:
        return self._provider.account()

    def key_id(self) -> str:
        return self._provider.key_id()

    def self_stop(self, provider_id: str) -> SelfStop | None:
        return self._provider.self_stop(provider_id)

    def _remembered(self) -> Sequence[Offer]:
        """What is on disk; nothing when that is torn, of another version or cannot be read."""
        try:
            record = json.loads(self._path.read_text())
            return [_decode(each) for each in record["offers"]] if record["v"] == VERSION else []
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def _remember(self, told: Sequence[Offer], need: Need) -> None:
        # Told anew, or not told although all of its kind was asked for: nobody offers it now.
        remembered = self._remembered()
        forgotten = {_key(offer) for offer in told}
        if need == Need(gpus=need.gpus, disk_gb=need.disk_gb):
            forgotten |= {_key(offer) for offer in _fitting(remembered, need)}
        kept = [offer for offer in remembered if _key(offer) not in forgotten]
        record = {"v": VERSION, "offers": [_encode(offer) for offer in (*kept, *told)]}
        # Prices are remembered as a favour: a full disk is no reason to know none.
        with contextlib.suppress(OSError):
            make_folder(self._path.parent)
            write_whole(self._path, json.dumps(record).encode())


# Plain and by hand: a provider may tell thousands, and a plan waits for them.
def _encode(offer: Offer) -> dict[str, Any]:
    return {**vars(offer), "seen_at": offer.seen_at.isoformat() if offer.seen_at else None}


def _decode(record: dict[str, Any]) -> Offer:
    seen_at = record["seen_at"]
    return Offer(**{**record, "seen_at": datetime.fromisoformat(seen_at) if seen_at else None})


def _key(offer: Offer) -> tuple[str, int, str, str, str]:
    return (offer.gpu, offer.count, offer.id, offer.region, offer.cloud)


def _fitting(offers: Sequence[Offer], need: Need) -> list[Offer]:
    """As far as an offer tells, 0 being nothing: disk, CUDA and volume are for the provider to
    judge."""
    kinds = {
        (gpu, count)
        for gpu, count in {(each.gpu, each.count) for each in offers}
        if any(fits(wanted, gpu) and number == count for wanted, number in need.gpus)
    }
    return [
        offer
        for offer in offers
        if (offer.gpu, offer.count) in kinds
        and need.region.lower() in ("", offer.region.lower())
        and need.cloud in ("", offer.cloud)
        and (offer.vcpus or need.vcpus) >= need.vcpus
        and (offer.ram_gb or need.ram_gb) >= need.ram_gb
    ]
