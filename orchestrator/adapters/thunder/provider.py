"""Thunder Compute as a Provider. Facts and traps: reference/thunder.md. No names, no stop, no
tags; an index that is reused; identity is the uuid and the mark is a key's comment."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.http import Api, Denied
from orchestrator.adapters.replies import shorten
from orchestrator.adapters.thunder.catalogue import (
    Prices,
    Spec,
    read_prices,
    read_specs,
    read_stock,
    to_offers,
)
from orchestrator.adapters.thunder.instances import Item, items, key_line, mark_of, to_body
from orchestrator.adapters.thunder.instances import to_instance as to_told
from orchestrator.core.offer import Need, Offer, Stock
from orchestrator.errors import LostAnswer, NoCapacity, ProviderError, Refused, Transient
from orchestrator.ports import Account, Capabilities, Clock, CreateRequest, Listing, SelfStop

CAPABILITIES = Capabilities(
    poll_s=6.0,
    idle_poll_s=30.0,
    listing_lag_s=60.0,
    # The list misses an instance in passing: Thunder's own client asks twice.
    absent_s=10.0,
    # Boots took 11 s on one day and five minutes on another.
    boot_s={"assigning": 600.0, "starting": 900.0, "endpoint": 300.0},
    billing_unit_s=60.0,
    keeps_disk=True,
)
_NO_CAPACITY = re.compile(
    r"\bcapacity|unavailable|\bno\b[^.;]*\b(available|instances|gpus)|out of stock|sold out",
    re.IGNORECASE,
)
_NO_PAYMENT = re.compile(r"\b(payment|billing|credits?|balance|card)\b", re.IGNORECASE)


@dataclass(frozen=True)
class _Market:
    specs: Mapping[str, Spec]
    prices: Prices


class ThunderProvider:
    """One account. `user` is whom the box's sshd lets in. An index is another instance's after the
    next create or delete: all processes that use one account share one `turn`."""

    name = "thunder"

    def __init__(
        self,
        api: Api,
        clock: Clock,
        *,
        user: str = "ubuntu",
        capabilities: Capabilities = CAPABILITIES,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self._api = api
        self._clock = clock
        self._user = user
        self._known: _Market | None = None
        self._turn = turn or threading.Lock()
        self.capabilities = capabilities

    def offers(self, need: Need) -> Sequence[Offer]:
        """A region of the need rules Thunder out, which has one and does not name it; so does a
        volume, which it has not."""
        if need.region or need.volume or need.cloud == "community":
            return ()
        market = self._market()
        stock = self._stock()
        now = self._clock.now()
        return tuple(to_offers(market.specs, market.prices, stock, need, now))

    def create(self, request: CreateRequest) -> str:
        try:
            with self._turn:
                made = self._api.create("/v1/instances/create", to_body(request))
        except Denied as error:
            raise self._why_not(error, request) from None
        # Its `key` is the private half of a pair that we did not ask for.
        provider_id = made.get("uuid") if isinstance(made, dict) else None
        if not isinstance(provider_id, str) or not provider_id:
            raise LostAnswer("Thunder answered a create without the instance's uuid")
        return provider_id

    def list(self) -> Listing:
        asked_at, key_id = self._clock.now(), self.key_id()
        listed = self._items()
        ours = [each for each in listed if mark_of(each)]
        if ours and self._known is None:
            # Without prices the list is as good as ever.
            with suppress(ProviderError):
                self._market()
        specs = self._known.specs if self._known else {}
        prices = self._known.prices if self._known else None
        told = [to_told(each, specs, prices, self._user) for each in ours]
        others = frozenset(each.uuid for each in listed if not mark_of(each))
        return Listing(asked_at, tuple(each for each in told if each), others, key_id)

    def terminate(self, provider_id: str) -> None:
        """The index is looked up right before it is used: it may be another instance's by the
        next list. Absent from the list is success; the proof is the caller's."""
        with self._turn:
            item = self._find(provider_id)
            if item is None:
                return
            try:
                self._api.act("POST", f"/v1/instances/{item.index}/delete", {})
            except Denied as error:
                if error.status != 404:
                    raise _denied(error, "the instance could not be ended") from None

    def ensure_access(self, provider_id: str, public_key: str) -> None:
        """A restart may have lost the box's keys; the mark stays the comment of what is added."""
        with self._turn:
            item = self._find(provider_id)
            if item is None:
                return
            body = {"public_key": key_line(public_key, mark_of(item) or "gpujob")}
            try:
                said = self._api.act("POST", f"/v1/instances/{item.index}/add_key", body)
            except Denied as error:
                if error.status not in (404, 409):
                    raise _denied(error, "the key could not be added") from None
                return
        if isinstance(said, dict) and said.get("success") is False:
            raise Transient(f"Thunder did not add the key: {shorten(str(said.get('message')))}")

    def host_keys(self, provider_id: str) -> Sequence[str]:
        return ()

    def logs(self, provider_id: str) -> str:
        return ""

    def account(self) -> Account:
        said = self._get("/v1/auth/validate")
        if not isinstance(said, dict):
            raise Transient("Thunder's word about the key cannot be read")
        if said.get("valid") is False:
            raise Refused(
                "Thunder did not accept the key", hint="gpujob doctor", provider_wide=True
            )
        who = shorten(str(said.get("email") or said.get("org_name") or "the key's account"))
        return Account("thunder", who, note="the balance is shown in Thunder's console alone")

    def key_id(self) -> str:
        return self._api.key_id()

    def self_stop(self, provider_id: str) -> SelfStop | None:
        """A box has no key of its own, and there is no stop."""
        return None

    def _market(self) -> _Market:
        """Specs and prices; the last ones are what instances are priced with."""
        specs = read_specs(self._get("/v2/specs"))
        prices = read_prices(self._get("/v2/pricing"))
        if not specs or not prices.by_key:
            raise Transient("Thunder's price list cannot be read")
        self._known = _Market(specs, prices)
        return self._known

    def _items(self, *, urgent: bool = False) -> tuple[Item, ...]:
        # Without it an address that moved is told late, or not at all (thunder.md §1.2).
        data = self._get("/v1/instances/list?update_ips=true", urgent=urgent)
        try:
            return tuple(items(data))
        except ValueError as error:
            raise Transient(f"Thunder's list of instances cannot be read: {error}") from None

    def _find(self, provider_id: str) -> Item | None:
        return next((each for each in self._items(urgent=True) if each.uuid == provider_id), None)

    def _get(self, path: str, *, urgent: bool = False) -> Any:
        try:
            return self._api.get(path, urgent=urgent)
        except Denied as error:
            raise _denied(error, f"{path} was refused") from None

    def _why_not(self, error: Denied, request: CreateRequest) -> ProviderError:
        """What a refused create means. No text for want of capacity is known: the status does."""
        what = f"{request.offer.gpu}:{request.offer.count}"
        if _NO_PAYMENT.search(error.text):
            return Refused(
                f"Thunder: the account cannot pay: {error.text}",
                hint="add a payment method in Thunder's console, then launch again",
                provider_wide=True,
            )
        if _NO_CAPACITY.search(error.text) or self._is_unavailable(request.offer):
            return NoCapacity(f"Thunder has no {what} now: {error.text}")
        return Refused(f"Thunder refused the instance ({error.status}): {error.text}")

    def _is_unavailable(self, offer: Offer) -> bool:
        try:
            stock = self._stock()
        except ProviderError:
            return False
        return stock.get(f"{offer.details['gpu_type']}_x{offer.count}") == "NONE"

    def _stock(self) -> Mapping[str, Stock]:
        """By key; nothing known is no reason to offer nothing."""
        try:
            return read_stock(self._api.get("/v2/status"))
        except Denied:
            return {}


def _denied(error: Denied, what: str) -> Refused:
    return Refused(
        f"Thunder: {what} ({error.status}): {error.text}", provider_wide=error.status == 403
    )
