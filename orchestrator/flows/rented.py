"""What the run has rented, against what the providers list: adopted, priced, watched while it
boots, and ended. The list is right and memory is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestrator.core.actions import Boot, Presence
from orchestrator.core.marks import make_mark
from orchestrator.core.offer import Offer
from orchestrator.core.run import Instance, Run, RunState
from orchestrator.errors import GpujobError
from orchestrator.flows.hold import Hold
from orchestrator.ports import CreateRequest, Provider, ProviderInstance, TaskContext

PRICE_USD = 1e-6


class Rented:
    """The instances of one run. `ended` are those whose end the provider was told and accepted."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._fleet = hold.world.fleet
        self._phases: dict[str, tuple[str, datetime]] = {}
        self._create_ended_at: dict[str, datetime] = {}
        self.ended: set[str] = set()

    def refresh(self, run: Run, silent: Mapping[str, datetime]) -> None:
        """Keep the listings young: often while something is about to change, else seldom. A box
        that was given back is silent for ever."""
        is_silent = any(each.usable and each.id in silent for each in run.instances)
        is_idle = run.state is RunState.WAITING and not run.still_billing
        quiet = is_idle or (run.state is RunState.RUNNING and not is_silent)
        for name in {each.provider for each in run.instances}:
            self._fleet.refresh(name, urgent=not quiet)

    def take_in(self, run: Run) -> Run:
        """Learn from the newest listings."""
        # A wiped machine has several names: only the newest of them can live.
        ours = {each.provider_id for each in run.instances if not each.gone_at}
        for instance in reversed(run.instances):
            found = self._fleet.find(instance)
            if found and not (instance.gone_at and found.provider_id in ours):
                ours.add(found.provider_id)
                self._take_in_one(instance, found)
        return self._hold.run()

    def presence(self, instance: Instance) -> Presence:
        since = instance.created_at or self._create_ended_at.get(
            instance.id, max(instance.intended_at, self._hold.watching_since)
        )
        return self._fleet.presence(instance, since)

    def troubles(self, run: Run) -> dict[str, str]:
        """What keeps the lists from telling about an instance, for a person to mend."""
        return {
            f"key of {each.provider}": (
                f"{each.provider} is asked with another key than {each.id} was rented with, and "
                "that account does not list it: it may bill on. Put the old key back"
            )
            for each in run.still_billing
            if self._fleet.is_foreign(each)
        }

    def boots(self, run: Run) -> dict[str, Boot]:
        """How far each instance has booted, counted from when it was first seen so."""
        return {
            each.id: boot
            for each in run.still_billing
            if each.running_at is None and (boot := self._boot(each))
        }

    def create(self, run: Run, offer: Offer) -> None:
        """Put the intent on record, then ask."""
        hold = self._hold
        instance = f"{run.id}-{len(run.instances) + 1}"
        mark = make_mark(hold.world.ledger.id, instance)
        provider = self._fleet.providers[offer.provider]
        hold.record(
            "instance.intended",
            instance=instance,
            provider=offer.provider,
            offer=offer.id,
            region=offer.region,
            usd_per_hour=offer.usd_per_hour,
            billing_unit_s=provider.capabilities.billing_unit_s,
            mark=mark,
            key_id=_key_id(provider),
        )
        boxes, phase = hold.world.boxes, hold.phase(run)

        def create(_: TaskContext) -> str:
            key = boxes.public_key()
            disk_gb = phase.need.disk_gb
            return provider.create(CreateRequest(instance, mark, offer, key, disk_gb, phase.rental))

        hold.begin(f"create:{instance}", create)

    def create_failed(self, instance: str) -> None:
        """From now on, later than this, the list is asked for what the create rented."""
        self._create_ended_at[instance] = self._hold.now()

    def terminate(self, run: Run, instance_id: str) -> None:
        """Order the end of everything that carries the instance's mark."""
        instance = run.find_instance(instance_id)
        if not instance.terminating:
            self._hold.record("instance.terminating", instance=instance_id)
        provider = self._hold.provider(instance)
        twins = self._fleet.twins(instance)
        if twins:
            self._hold.begin(f"terminate:{instance_id}", _end_all, provider, twins)

    def terminated(self, instance: Instance) -> None:
        """The provider took the order; that it is gone is for the list to prove."""
        self.ended.add(instance.id)
        self._hold.pause(
            f"terminate:{instance.id}", 2 * self._hold.provider(instance).capabilities.poll_s
        )
        if instance.released_at is None or self._lives_on(instance):
            self._hold.record("instance.released", instance=instance.id)

    def _lives_on(self, instance: Instance) -> bool:
        """Whether the order before this one was taken and not carried out: it has billed since."""
        found, at = self._fleet.find(instance), self._fleet.listed_at(instance.provider)
        since = instance.released_at
        lives = found is not None and found.state != "BROKEN" and found.usd_per_hour > 0
        return bool(lives and at and since and at > since)

    def gone(self, instance: Instance) -> None:
        since = self._fleet.absent_since(instance)
        ended_at = since.isoformat() if since else None
        self._hold.record("instance.gone", instance=instance.id, ended_at=ended_at)

    def restarted(self, run: Run, instance: Instance, reason: str) -> None:
        """Its processes are gone: what answers there now is pinned and prepared anew. Without its
        disk it is another instance on the same machine: nothing that it held is there."""
        found = self._fleet.find(instance)
        where = found if found and found.host else None
        told: dict[str, Any] = {
            "instance": instance.id,
            "reason": reason,
            "host": where.host if where else instance.host,
            "port": where.port if where else instance.port,
            "restart_marker": where.restart_marker if where else instance.restart_marker,
        }
        if self._hold.provider(instance).capabilities.keeps_disk:
            self._hold.record("instance.restarted", **told)
        else:
            successor = f"{run.id}-{len(run.instances) + 1}"
            self._hold.record("instance.wiped", successor=successor, **told)

    def _take_in_one(self, instance: Instance, found: ProviderInstance) -> None:
        if instance.gone_at:
            self._reappeared(instance, found)
        elif instance.provider_id is None:
            if f"create:{instance.id}" not in self._hold.busy():
                self._hold.record(
                    "instance.created", instance=instance.id, provider_id=found.provider_id
                )
        else:
            self._rekey(instance)
            self._price(instance, found)
            self._address(instance, found)

    def _reappeared(self, instance: Instance, found: ProviderInstance) -> None:
        self.ended.discard(instance.id)
        self._hold.record(
            "instance.reappeared", instance=instance.id, provider_id=found.provider_id
        )

    def _rekey(self, instance: Instance) -> None:
        """The same account under a new key: its lists count from now on."""
        key_id = self._fleet.seen_with(instance)
        if key_id != instance.key_id:
            self._hold.record("instance.rekeyed", instance=instance.id, key_id=key_id)

    def _price(self, instance: Instance, found: ProviderInstance) -> None:
        if abs(found.usd_per_hour - instance.price_usd_per_hour) > PRICE_USD:
            self._hold.record(
                "instance.priced", instance=instance.id, usd_per_hour=found.usd_per_hour
            )

    def _address(self, instance: Instance, found: ProviderInstance) -> None:
        if found.state != "RUNNING" or instance.terminating or instance.lost:
            return
        where = {"host": found.host, "port": found.port}
        if instance.running_at is None:
            self._hold.record(
                "instance.running",
                instance=instance.id,
                **where,
                user=found.user,
                restart_marker=found.restart_marker,
            )
        elif found.restart_marker == instance.restart_marker and where != {
            "host": instance.host,
            "port": instance.port,
        }:
            # The pin goes with the name and not with the address.
            self._hold.record("instance.moved", instance=instance.id, **where)

    def _boot(self, instance: Instance) -> Boot | None:
        found = self._fleet.find(instance)
        limits = self._hold.provider(instance).capabilities.boot_s
        if found is None or found.phase not in limits:
            return None
        phase, since = self._phases.get(instance.id, ("", self._hold.now()))
        if phase != found.phase or since < self._hold.watching_since:
            since = self._hold.now()
            self._phases[instance.id] = (found.phase, since)
        return Boot(found.phase, since, limits[found.phase], found.detail)


def _key_id(provider: Provider) -> str:
    """Empty without a key: then the create says so."""
    try:
        return provider.key_id()
    except GpujobError:
        return ""


def _end_all(_: TaskContext, provider: Provider, twins: set[str]) -> None:
    """A create that was answered twice may have rented twice, and both bill."""
    for provider_id in sorted(twins):
        provider.terminate(provider_id)
