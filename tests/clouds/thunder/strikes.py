"""What befalls an instance while it runs, each by the fault of that name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from clouds.clock import iso
from clouds.faults import Params
from clouds.thunder.instances import Instance

if TYPE_CHECKING:
    from clouds.thunder.fleet import Fleet

Strike = Callable[["Fleet", Instance, Params, datetime], Awaitable[None]]


async def strike(fleet: Fleet, instance: Instance, now: datetime) -> None:
    """Let the armed faults whose moment has come act on an instance that can be reached."""
    for name, act in STRIKES.items():
        if instance.status(now) != "RUNNING" or not instance.open or instance.gone_at:
            return
        since_s = instance.calm_s(now)
        params = fleet.faults.take(name, since_s=since_s, **instance.facts)
        if params:
            instance.befallen_at = now
            await act(fleet, instance, params, now)


async def _address_changes(fleet: Fleet, instance: Instance, params: Params, now: datetime) -> None:
    """Its way is gone at once; the new one leads there when the migration is over."""
    if instance.box is None:
        return
    for_s = float(params["for_s"])
    if not params["told"]:
        instance.old_port = instance.old_port or instance.box.port
    instance.spell("MIGRATING", now, for_s)
    await instance.box.refuse()
    await instance.box.move()
    _close(instance, now, for_s)
    if params["restarts"] or params["new_host_key"]:
        await fleet.restart_box(instance, new_host_key=bool(params["new_host_key"]))


async def _container_restarts(
    fleet: Fleet, instance: Instance, params: Params, now: datetime
) -> None:
    """The disk is kept, whatever ran is gone."""
    reason = str(params["reason"])
    instance.restart = {
        "reason": reason,
        "timestamp": iso(now),
        "message": f"container was restarted: {reason}",
        "exitCode": 137,
    }
    _close(instance, now, float(params["down_s"]))
    await fleet.restart_box(instance)


async def _keys_lost(fleet: Fleet, instance: Instance, params: Params, now: datetime) -> None:
    if instance.box:
        instance.box.lock()
    await _container_restarts(fleet, instance, params, now)


async def _host_dies(fleet: Fleet, instance: Instance, params: Params, now: datetime) -> None:
    await _die(instance, silent=bool(params["silent"]))


async def _host_key_changes(
    fleet: Fleet, instance: Instance, params: Params, now: datetime
) -> None:
    """Nobody gets through to the true one while the other is being made."""
    if instance.box:
        await instance.box.refuse()
        await instance.box.cut()
        await instance.box.impostor()


async def _ssh_drops(fleet: Fleet, instance: Instance, params: Params, now: datetime) -> None:
    if instance.box:
        await instance.box.cut()


async def _vanishes(fleet: Fleet, instance: Instance, params: Params, now: datetime) -> None:
    fleet.remove(instance)


async def _stopped(fleet: Fleet, instance: Instance, params: Params, now: datetime) -> None:
    instance.halted = True
    instance.spell("STOPPING", now, float(params["for_s"]))
    if not params["bills"]:
        fleet.unbill(instance)
    await _die(instance)


async def _unknown(fleet: Fleet, instance: Instance, params: Params, now: datetime) -> None:
    instance.spell("UNKNOWN", now, float(params["for_s"]))


async def _blinks(fleet: Fleet, instance: Instance, params: Params, now: datetime) -> None:
    instance.hidden_until = now + timedelta(seconds=float(params["for_s"]))


def _close(instance: Instance, now: datetime, for_s: float) -> None:
    instance.open = False
    instance.opens_at = now + timedelta(seconds=for_s)


async def _die(instance: Instance, *, silent: bool = False) -> None:
    """Silent first: a dead host sends no farewell over its open connections."""
    instance.open, instance.dead = False, True
    if instance.box:
        await (instance.box.silence() if silent else instance.box.refuse())
        await instance.box.kill()


STRIKES: dict[str, Strike] = {
    "instance-blinks": _blinks,
    "status-unknown-in-passing": _unknown,
    "ssh-drops": _ssh_drops,
    "container-restarts": _container_restarts,
    "container-restarts-keys-lost": _keys_lost,
    "address-changes": _address_changes,
    "host-key-changes": _host_key_changes,
    "host-dies": _host_dies,
    "stopped": _stopped,
    "vanishes": _vanishes,
}
