"""What befalls a pod while it runs, each by the fault of that name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from clouds.faults import Params
from clouds.runpod.pods import Pod

if TYPE_CHECKING:
    from clouds.runpod.fleet import Fleet

Strike = Callable[["Fleet", Pod, Params], Awaitable[None]]


async def strike(fleet: Fleet, pod: Pod, now: datetime) -> None:
    """Let every armed fault whose moment has come act on a RUNNING pod, once."""
    facts = {"instance": pod.id, "mark": pod.name, "since_s": pod.running_s(now)}
    for name, act in STRIKES.items():
        while pod.status(now) == "RUNNING":
            params = fleet.faults.take(name, once=pod.struck, **facts)
            if params is None:
                break
            await act(fleet, pod, params)


async def _host_vanishes(fleet: Fleet, pod: Pod, params: Params) -> None:
    """Silent first: a dead host sends no farewell over its open connections."""
    pod.refuses = True
    if pod.box:
        await (pod.box.silence() if params["silent"] else pod.box.refuse())
        await pod.box.kill()


async def _container_restarts(fleet: Fleet, pod: Pod, params: Params) -> None:
    await _restart(fleet, pod, params, move=False)


async def _port_changes(fleet: Fleet, pod: Pod, params: Params) -> None:
    await _restart(fleet, pod, params, move=True)


async def _restart(fleet: Fleet, pod: Pod, params: Params, *, move: bool) -> None:
    wipe, new_host_key = bool(params["wipe"]), bool(params["new_host_key"])
    await fleet.restart_box(pod, wipe=wipe, new_host_key=new_host_key, move=move)
    now = fleet.clock.now()
    pod.container_at, pod.opened = now, False
    pod.say(now, "system", "start container")
    fleet.announce(pod, now)


async def _host_key_changes(fleet: Fleet, pod: Pod, params: Params) -> None:
    if pod.box:
        await pod.box.cut()
        await pod.box.impostor()


async def _ssh_drops(fleet: Fleet, pod: Pod, params: Params) -> None:
    if pod.box:
        await pod.box.cut()


async def _endpoint_refuses(fleet: Fleet, pod: Pod, params: Params) -> None:
    pod.refuses = True
    if pod.box:
        await pod.box.refuse()


async def _pod_error(fleet: Fleet, pod: Pod, params: Params) -> None:
    fleet.stop(pod, "container is in an unrecoverable error state", "ERROR")


async def _maintenance(fleet: Fleet, pod: Pod, params: Params) -> None:
    fleet.stop(pod, "Exited by Runpod")


async def _deleted(fleet: Fleet, pod: Pod, params: Params) -> None:
    fleet.end(pod)


async def _balance_zero(fleet: Fleet, pod: Pod, params: Params) -> None:
    fleet.account.set_balance(0.0)


async def _outbid(fleet: Fleet, pod: Pod, params: Params) -> None:
    pod.outbid_at = fleet.clock.now() + timedelta(seconds=float(params["grace_s"]))
    if pod.box:
        pod.box.warn()


async def _blinks(fleet: Fleet, pod: Pod, params: Params) -> None:
    pod.hidden_until = fleet.clock.now() + timedelta(seconds=float(params["for_s"]))


STRIKES: dict[str, Strike] = {
    "endpoint-refuses": _endpoint_refuses,
    "pod-blinks": _blinks,
    "ssh-drops": _ssh_drops,
    "container-restarts": _container_restarts,
    "port-changes-after-restart": _port_changes,
    "host-key-changes": _host_key_changes,
    "host-vanishes": _host_vanishes,
    "spot-outbid": _outbid,
    "pod-error": _pod_error,
    "maintenance-exit": _maintenance,
    "balance-zero": _balance_zero,
    "deleted-from-console": _deleted,
}
