"""What the providers say exists, asked once for all runs and stamped with when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from orchestrator.core.actions import Presence
from orchestrator.core.run import Instance
from orchestrator.errors import GpujobError
from orchestrator.ports import Clock, Listing, Provider, ProviderInstance, Tasks

STALE_S = 60.0


class Fleet:
    """Keeps the newest listing of each provider fresh, by tasks that any run may ask for, and
    since when each instance has been missing from them."""

    def __init__(self, providers: Mapping[str, Provider], tasks: Tasks, clock: Clock) -> None:
        self.providers = providers
        self._tasks = tasks
        self._clock = clock
        self._newest: dict[str, Listing] = {}
        self._first_at: dict[str, datetime] = {}
        self._missing: dict[tuple[str, str], datetime] = {}
        self._asked_at: dict[str, datetime] = {}
        self.trouble: dict[str, str] = {}

    def refresh(self, name: str, *, urgent: bool = True) -> None:
        """Take in a listing that has arrived; ask for the next when the last is old."""
        key = f"list:{name}"
        task = self._tasks.take(key)
        if task and task.state == "done":
            self._take_in(name, task.result)
            self.trouble.pop(name, None)
        elif task:
            self.trouble[name] = describe(task.error)
        provider = self.providers[name]
        able = provider.capabilities
        asked_at = self._asked_at.get(name)
        every = timedelta(seconds=able.poll_s if urgent else able.idle_poll_s)
        due = asked_at is None or self._clock.now() - asked_at >= every
        if due and self._tasks.start(key, lambda _: provider.list()):
            self._asked_at[name] = self._clock.now()

    def woke(self) -> None:
        """Time made a jump: list anew, whenever that was done last."""
        self._asked_at.clear()

    def find(self, instance: Instance) -> ProviderInstance | None:
        """The instance as its provider listed it last, by id or, unanswered, by its mark."""
        listing = self._newest.get(instance.provider)
        for each in listing.instances if listing else ():
            if each.provider_id == instance.provider_id or each.mark == instance.mark:
                return each
        return None

    def listed_at(self, provider: str) -> datetime | None:
        """When the newest listing was asked for."""
        listing = self._newest.get(provider)
        return listing.listed_at if listing else None

    def twins(self, instance: Instance) -> set[str]:
        """The provider ids of everything that carries the instance's mark."""
        listing = self._newest.get(instance.provider)
        listed = listing.instances if listing else ()
        known = {instance.provider_id} if instance.provider_id else set()
        return known | {each.provider_id for each in listed if each.mark == instance.mark}

    def presence(self, instance: Instance, since: datetime) -> Presence:
        """What the newest listings say, "unknown" unless they are from after `since`.

        UNKNOWN is never GONE: absence counts only once the provider's list is current, and when
        it has lasted: lists miss in passing what lives on and bills."""
        listing = self._newest.get(instance.provider)
        able = self.providers[instance.provider].capabilities
        if listing is None or self._is_stale(listing, able.idle_poll_s):
            return "unknown"
        found = self.find(instance)
        if found:
            return self._of_listed(instance, found, kept=able.keeps_disk)
        if instance.provider_id in listing.others or self.is_foreign(instance):
            return "unknown"
        current = since + timedelta(seconds=able.listing_lag_s)
        absent_at = max(current, self.absent_since(instance) or current)
        lasted_s = (listing.listed_at - absent_at).total_seconds()
        told = listing.listed_at > current and instance.provider not in self.trouble
        return "gone" if told and lasted_s >= able.absent_s else "unknown"

    def absent_since(self, instance: Instance) -> datetime | None:
        """When the first of the listings was asked for that lack it, without a break until now;
        None while it is listed or nothing is."""
        if self.find(instance):
            return None
        keys = [(instance.provider, key) for key in (instance.provider_id, instance.mark) if key]
        missed = [self._missing[key] for key in keys if key in self._missing]
        return max(missed) if missed else self._first_at.get(instance.provider)

    def seen_with(self, instance: Instance) -> str:
        """The sign of the key that the newest listing was asked with, when it shows the instance;
        else that of the instance."""
        listing = self._newest.get(instance.provider)
        return listing.key_id if listing and self.find(instance) else instance.key_id

    def is_foreign(self, instance: Instance) -> bool:
        """Whether another key than the instance's was told a list without it: another account
        knows nothing of it, while it bills on where nobody looks."""
        listing = self._newest.get(instance.provider)
        keys = {instance.key_id, listing.key_id if listing else ""}
        return "" not in keys and len(keys) > 1 and not self.find(instance)

    def _take_in(self, name: str, listing: Listing) -> None:
        before, now = _keys(self._newest.get(name)), _keys(listing)
        self._newest[name] = listing
        self._first_at.setdefault(name, listing.listed_at)
        for key in now:
            self._missing.pop((name, key), None)
        for key in before - now:
            self._missing[name, key] = listing.listed_at

    def _is_stale(self, listing: Listing, poll_s: float) -> bool:
        return self._clock.now() - listing.listed_at > timedelta(seconds=max(STALE_S, 4 * poll_s))

    @staticmethod
    def _of_listed(instance: Instance, found: ProviderInstance, *, kept: bool) -> Presence:
        if found.state == "BROKEN":
            return "broken"
        known, now = instance.restart_marker, found.restart_marker
        if found.state == "RUNNING" and instance.running_at and known and now and known != now:
            return "restarted" if kept else "wiped"
        return "present"


def _keys(listing: Listing | None) -> set[str]:
    listed = listing.instances if listing else ()
    return {key for each in listed for key in (each.provider_id, each.mark)}


def describe(error: Exception | None) -> str:
    """One line for the ledger."""
    if isinstance(error, GpujobError):
        return error.message
    return f"{type(error).__name__}: {error}"
