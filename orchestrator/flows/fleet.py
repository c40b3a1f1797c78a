"""What the providers say exists, asked once for all runs and stamped with when."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta

from orchestrator.core.actions import Presence
from orchestrator.core.run import Instance
from orchestrator.errors import GpujobError
from orchestrator.ports import Clock, Listing, Provider, ProviderInstance, Tasks

STALE_S = 60.0
REMEMBERED = 8


class Fleet:
    """Keeps the newest listings of each provider fresh, by tasks that any run may ask for."""

    def __init__(self, providers: Mapping[str, Provider], tasks: Tasks, clock: Clock) -> None:
        self.providers = providers
        self._tasks = tasks
        self._clock = clock
        self._listings: dict[str, deque[Listing]] = {}
        self._asked_at: dict[str, datetime] = {}
        self.trouble: dict[str, str] = {}

    def refresh(self, name: str, *, urgent: bool = True) -> None:
        """Take in a listing that has arrived; ask for the next when the last is old."""
        key = f"list:{name}"
        task = self._tasks.take(key)
        if task and task.state == "done":
            self._listings.setdefault(name, deque(maxlen=REMEMBERED)).appendleft(task.result)
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

    def find(self, instance: Instance) -> ProviderInstance | None:
        """The instance as its provider listed it last, by id or, unanswered, by its mark."""
        newest = self._recent(instance.provider)[:1]
        return _find(newest[0], instance) if newest else None

    def listed_at(self, provider: str) -> datetime | None:
        """When the newest listing was asked for."""
        return next((each.listed_at for each in self._recent(provider)), None)

    def twins(self, instance: Instance) -> set[str]:
        """The provider ids of everything that carries the instance's mark."""
        newest = self._recent(instance.provider)[:1]
        listed = newest[0].instances if newest else ()
        known = {instance.provider_id} if instance.provider_id else set()
        return known | {each.provider_id for each in listed if each.mark == instance.mark}

    def presence(self, instance: Instance, since: datetime) -> Presence:
        """What the newest listings say, "unknown" unless they are from after `since`.

        UNKNOWN is never GONE: absence counts only once the provider's list is current, and as
        often in a row as the provider needs."""
        recent = self._recent(instance.provider)
        able = self.providers[instance.provider].capabilities
        if not recent or self._is_stale(recent[0], able.idle_poll_s):
            return "unknown"
        found = _find(recent[0], instance)
        if found:
            return self._of_listed(instance, found, kept=able.keeps_disk)
        current = since + timedelta(seconds=able.listing_lag_s)
        telling = recent[: able.absences]
        enough = len(telling) == able.absences and instance.provider not in self.trouble
        absent = all(each.listed_at > current and not _find(each, instance) for each in telling)
        return "gone" if enough and absent else "unknown"

    def absent_since(self, instance: Instance) -> datetime | None:
        """When the first of the listings was asked for that lack it, without a break until now."""
        since = None
        for listing in self._recent(instance.provider):
            if _find(listing, instance):
                break
            since = listing.listed_at
        return since

    def _recent(self, provider: str) -> list[Listing]:
        """Newest first."""
        return list(self._listings.get(provider, ()))

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


def describe(error: Exception | None) -> str:
    """One line for the ledger."""
    if isinstance(error, GpujobError):
        return error.message
    return f"{type(error).__name__}: {error}"


def _find(listing: Listing, instance: Instance) -> ProviderInstance | None:
    for each in listing.instances:
        if each.provider_id == instance.provider_id or each.mark == instance.mark:
            return each
    return None
