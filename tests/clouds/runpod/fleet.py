"""All pods with their boxes: what is done to them, and bringing each of them to now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from clouds.account import Account
from clouds.boxes import Boxes
from clouds.clock import CloudClock
from clouds.faults import Faults
from clouds.runpod import scripts, strikes
from clouds.runpod.catalogue import Taken
from clouds.runpod.pods import ASSIGNED, Pod

# ~/.bashrc of the image: nothing for a plain command, the pod's variables for a login
LOGIN = b'[ -z "$PS1" ] && return\nsource /etc/rp_environment\n'


class Fleet:
    def __init__(
        self, clock: CloudClock, account: Account, faults: Faults, boxes: Boxes, boot_s: float
    ) -> None:
        self.clock = clock
        self.account = account
        self.faults = faults
        self.pods: dict[str, Pod] = {}
        self._boxes = boxes
        self._boot_s = boot_s
        self._settling = asyncio.Lock()
        self._last_port = 0

    def living(self) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.ended_at is None]

    def taken(self) -> Taken:
        """A stopped pod's GPUs are for others to take."""
        taken: Taken = {}
        for pod in self.living():
            if pod.gpu and pod.halted != "EXITED":
                place = (pod.center, pod.gpu[0])
                taken[place] = taken.get(place, 0) + pod.gpu[1]
        return taken

    def add(self, pod: Pod) -> None:
        """From here on the pod exists and bills."""
        self.pods[pod.id] = pod
        self._take_boot_faults(pod, "create")
        self.account.bill(pod.id, pod.name, pod.usd_per_hour, pod.created_at)
        pod.say(pod.created_at, "system", *scripts.pulling(pod))
        recycled = self.faults.take("endpoint-recycled")
        self._later(pod, lambda: self._rent(pod, self._last_port if recycled else 0))

    def stop(self, pod: Pod, why: str = "Exited by user", status: str = "EXITED") -> None:
        """Its processes end and its port refuses; the container's disk is lost."""
        now = self.clock.now()
        pod.halted, pod.outbid_at = status, None
        pod.say(now, "system", f"{why}: {now:%Y-%m-%d %H:%M:%S}", "stop container")
        self.account.bill(pod.id, pod.name, pod.cost_usd(now), now)
        self._later(pod, lambda: _close(pod))

    def boot(self, pod: Pod, *, start: bool) -> None:
        """A start or a restart: same host, wiped disk, other public port, other host key."""
        now = self.clock.now()
        pod.boot_again(now, self._boot_s)
        pod.struck.clear()
        self._take_boot_faults(pod, "start" if start else "restart")
        self.account.bill(pod.id, pod.name, pod.usd_per_hour, now)
        pod.say(now, "system", "start container")
        self._later(pod, lambda: self.restart_box(pod, wipe=True, new_host_key=True, move=True))

    def end(self, pod: Pod) -> None:
        now = self.clock.now()
        if pod.ended_at is not None:
            return
        pod.ended_at = now
        self.account.bill(pod.id, pod.name, 0.0, now)
        self._later(pod, lambda: self._remove(pod))

    async def restart_box(self, pod: Pod, *, wipe: bool, new_host_key: bool, move: bool) -> None:
        if pod.box is None:
            return
        await pod.box.refuse()
        if move:
            await pod.box.move()
        pod.box.set_gpus(*pod.gpus())
        self._write_environment(pod)
        await pod.box.reboot(wipe=wipe, new_host_key=new_host_key)

    def announce(self, pod: Pod, at: datetime) -> None:
        """What the image's start script prints."""
        lacks = self.faults.peek("no-host-key-in-log", instance=pod.id, mark=pod.name)
        pod.say(at, "container", *scripts.started(pod, keys=not lacks))

    async def settle(self) -> None:
        async with self._settling:
            now = self.clock.now()
            for pod in self.living():
                await self._settle(pod, now)
            self._collect()

    async def close(self) -> None:
        """Let what is being done to boxes end; they themselves are ended by who owns them."""
        work = [pod.work for pod in self.pods.values() if pod.work]
        await asyncio.gather(*work, return_exceptions=True)

    async def _settle(self, pod: Pod, now: datetime) -> None:
        status = pod.status(now)
        if pod.oci_loop and status == "STARTING":
            self._say_oci(pod, now)
        if status != "RUNNING":
            return
        if pod.work:
            await pod.work
        if not pod.announced:
            pod.announced = True
            self.announce(pod, pod.running_at)
        await strikes.strike(self, pod, now)
        if pod.outbid_at and now >= pod.outbid_at:
            self.stop(pod, "Outbid")
        opens = pod.serves_ssh and not pod.refuses and not pod.opened and now >= pod.sshd_at
        if opens and pod.box and pod.status(now) == "RUNNING":
            pod.opened = True
            await pod.box.open()

    def _collect(self) -> None:
        """At zero a pod without a network volume is gone, and its data with it."""
        if self.account.balance_usd > 0 or not self.account.spend_usd_per_hour:
            return
        for pod in self.living():
            if pod.volume is None:
                self.end(pod)
            elif pod.halted != "EXITED":
                self.stop(pod, "Exited by Runpod")

    def _take_boot_faults(self, pod: Pod, at: str) -> None:
        facts = {"instance": pod.id, "mark": pod.name}
        take = self.faults.take
        if at == "create" and take("stuck-provisioning", **facts):
            pod.stuck = "PROVISIONING"
        elif take("stuck-starting", **facts):
            pod.stuck = "STARTING"
        elif take("oci-loop", **facts):
            pod.stuck, pod.oci_loop = "STARTING", True
        pod.no_endpoint = take("no-endpoint", **facts) is not None
        if slow := take("slow-boot", **facts):
            pod.boot_s = float(slow["boot_s"])
        if at != "restart":
            missing = take("gpu-missing", at=at, **facts)
            pod.shown_gpus = int(missing["count"]) if missing else None

    async def _rent(self, pod: Pod, port: int) -> None:
        locked_out = self.faults.take("key-not-installed", instance=pod.id, mark=pod.name)
        box = await self._boxes.rent(
            pod.id,
            user="root",
            keys=[] if locked_out else pod.keys,
            gpus=pod.gpus(),
            login=LOGIN,
            port=port,
        )
        pod.box = box
        self._write_environment(pod)

    async def _remove(self, pod: Pod) -> None:
        if pod.box:
            self._last_port = pod.box.port or self._last_port
            await pod.box.end()

    def _write_environment(self, pod: Pod) -> None:
        if pod.box:
            lines = [f'export {n}="{v}"\n' for n, v in pod.injected(pod.box.port).items()]
            pod.box.write_etc("rp_environment", "".join(lines).encode())

    def _say_oci(self, pod: Pod, now: datetime) -> None:
        since = pod.boot_at + timedelta(seconds=ASSIGNED * pod.boot_s)
        said = sum(line.text == scripts.OCI for line in pod.log)
        for n in range(said, int((now - since).total_seconds() // 10) + 1):
            pod.say(since + timedelta(seconds=10 * n), "system", "start container", scripts.OCI)

    def _later(self, pod: Pod, do: Callable[[], Awaitable[None]]) -> None:
        """What is done to one box is done in order."""
        before = pod.work

        async def work() -> None:
            if before:
                await before
            await do()

        pod.work = asyncio.create_task(work())


async def _close(pod: Pod) -> None:
    if pod.box:
        await pod.box.refuse()
        await pod.box.kill()
