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
    """Keeps the newest listing of each provider fresh, by tasks that any run may ask for."""

    def __init__(self, providers: Mapping[str, Provider], tasks: Tasks, clock: Clock) -> None:
        self.providers = providers
        self._tasks = tasks
        self._clock = clock
        self._listings: dict[str, Listing] = {}
        self._asked_at: dict[str, datetime] = {}
        self.trouble: dict[str, str] = {}

    def refresh(self, name: str) -> None:
        """Take in a listing that has arrived; ask for the next when the last is old."""
        key = f"list:{name}"
        task = self._tasks.take(key)
        if task and task.state == "done":
            self._listings[name] = task.result
            self.trouble.pop(name, None)
        elif task:
            self.trouble[name] = str(task.error)
        provider = self.providers[name]
        asked_at = self._asked_at.get(name)
        every = timedelta(seconds=provider.capabilities.poll_s)
        due = asked_at is None or self._clock.now() - asked_at >= every
        if due and self._tasks.start(key, lambda _: provider.list()):
            self._asked_at[name] = self._clock.now()

    def find(self, instance: Instance) -> ProviderInstance | None:
        """The instance as its provider lists it, by id or, unanswered, by its mark."""
        listing = self._listings.get(instance.provider)
        for each in listing.instances if listing else ():
            if each.provider_id == instance.provider_id or each.mark == instance.mark:
                return each
        return None

    def twins(self, instance: Instance) -> set[str]:
        """The provider ids of everything that carries the instance's mark: a create that was
        repeated may have rented twice, and both bill."""
        listing = self._listings.get(instance.provider)
        listed = listing.instances if listing else ()
        known = {instance.provider_id} if instance.provider_id else set()
        return known | {each.provider_id for each in listed if each.mark == instance.mark}

    def presence(self, instance: Instance, since: datetime) -> Presence:
        """What the newest listing says, "unknown" unless it is from after `since`.

        UNKNOWN is never GONE: absence counts only once the provider's list is current."""
        listing = self._listings.get(instance.provider)
        able = self.providers[instance.provider].capabilities
        if listing is None or listing.listed_at <= since + timedelta(seconds=able.listing_lag_s):
            return "unknown"
        stale_s = max(STALE_S, 4 * able.poll_s)
        if self._clock.now() - listing.listed_at > timedelta(seconds=stale_s):
            return "unknown"
        found = self.find(instance)
        if found is None:
            return "unknown" if instance.provider in self.trouble else "gone"
        restarted = instance.restart_marker and found.restart_marker != instance.restart_marker
        return "broken" if found.state == "BROKEN" or restarted else "present"


def describe(error: Exception | None) -> str:
    """One line for the ledger."""
    if isinstance(error, GpujobError):
        return error.message
    return f"{type(error).__name__}: {error}"
