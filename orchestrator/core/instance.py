"""One rented machine and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

InstanceWord = Literal["PENDING", "RUNNING", "BROKEN", "GONE"]


@dataclass(frozen=True)
class Rate:
    """What an instance costs from `at` on."""

    at: datetime
    usd_per_hour: float


@dataclass(frozen=True)
class Refusal:
    """Why a create rented nothing: `absent` when no answer came and the provider never listed it,
    `patience` when the account has to wait for its turn. `provider_wide` when it was about the
    account and not about the offer."""

    why: Literal["no_capacity", "refused", "transient", "absent", "patience"]
    message: str
    provider_wide: bool = False


@dataclass(frozen=True)
class Instance:
    """One rented machine, from the intent to rent it to the proof that it is gone.

    `rates` are the prices that the provider told; before the first it is the offer's. Its
    billing ends at `released_at` (the provider took the order to end it), else at `gone_at`.
    `key_id` is the sign of the key that it was rented or last seen with. `looked` once S3 was
    asked what it had pushed before it was lost. `retired` says why it is given back in good health.
    """

    id: str
    provider: str
    offer: str
    usd_per_hour: float
    mark: str
    intended_at: datetime
    state: InstanceWord = "PENDING"
    provider_id: str | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    restart_marker: str = ""
    created_at: datetime | None = None
    running_at: datetime | None = None
    prepared: bool = False
    lost: str | None = None
    lost_at: datetime | None = None
    booted: bool = False
    looked: bool = False
    refused: Refusal | None = None
    terminating: bool = False
    released_at: datetime | None = None
    gone_at: datetime | None = None
    restarts: int = 0
    region: str = ""
    rates: tuple[Rate, ...] = ()
    billing_unit_s: float = 1.0
    key_id: str = ""
    retired: str = ""

    @property
    def usable(self) -> bool:
        """Ours to work with: not lost, refused, given back, being ended or gone."""
        over = self.lost or self.refused or self.retired or self.terminating or self.gone_at
        return not over

    @property
    def may_bill(self) -> bool:
        return self.gone_at is None and self.refused is None

    @property
    def price_usd_per_hour(self) -> float:
        """What it costs now, in the provider's newest word."""
        return self.rates[-1].usd_per_hour if self.rates else self.usd_per_hour

    def ends_at(self, now: datetime) -> datetime:
        """When its billing ended; `now` while it bills."""
        if self.gone_at is None:
            return now
        return min(each for each in (self.released_at, self.gone_at) if each)

    def hours(self, now: datetime) -> float:
        """Hours rented, rounded up to what the provider bills; 0 when nothing was rented."""
        if self.refused:
            return 0.0
        seconds = (self.ends_at(now) - self.intended_at).total_seconds()
        return self._billed_s(seconds) / 3600

    def cost_usd(self, now: datetime) -> float:
        """Dollars from the intent to the end, at the prices that held; while it is alive, until
        `now`."""
        if self.refused:
            return 0.0
        end = self.ends_at(now)
        seconds = (end - self.intended_at).total_seconds()
        rest_h = (self._billed_s(seconds) - seconds) / 3600
        return self.cost_between(self.intended_at, end) + rest_h * self.price_usd_per_hour

    def cost_between(self, start: datetime, end: datetime) -> float:
        """Dollars of a part of its life, not rounded."""
        first = Rate(self.intended_at, self.usd_per_hour)
        changes = [first, *self.rates, Rate(max(end, start), 0.0)]
        total = 0.0
        for rate, following in pairwise(changes):
            from_at, to_at = max(rate.at, start), min(following.at, end)
            total += max(0.0, (to_at - from_at).total_seconds()) * rate.usd_per_hour / 3600
        return total

    def _billed_s(self, seconds: float) -> float:
        unit = self.billing_unit_s
        return math.ceil(max(0.0, seconds) / unit - 1e-9) * unit
