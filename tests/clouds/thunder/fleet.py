"""All instances with their boxes: what is done to them, and bringing each of them to now."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from clouds.account import Account
from clouds.boxes import Boxes
from clouds.clock import CloudClock
from clouds.cloud import Options
from clouds.faults import Faults
from clouds.thunder import strikes, virtual
from clouds.thunder.instances import (
    LINGER_S,
    RESTORING,
    WORDS,
    Boot,
    Instance,
    free_index,
    renumber,
)
from clouds.thunder.sshkeys import mark_of
from clouds.thunder.validate import Order

USER = "ubuntu"


class Fleet:
    def __init__(
        self, options: Options, clock: CloudClock, account: Account, faults: Faults, boxes: Boxes
    ) -> None:
        self.clock = clock
        self.account = account
        self.faults = faults
        self.all: dict[str, Instance] = {}
        self._options = options
        self._boxes = boxes
        self._settling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def living(self) -> list[Instance]:
        return list(self.all.values())

    def find(self, name: str) -> Instance | None:
        """By uuid, or by what its index is now."""
        by_uuid = None if self.faults.peek("uuid-refused") else self.all.get(name)
        by_index = (each for each in self.living() if str(each.index) == name)
        return by_uuid or next(by_index, None)

    def shift(self) -> None:
        renumber(self.living())

    def rent(self, order: Order, keys: list[str], home: Path | None = None) -> Instance:
        """From here on the instance exists and bills; its box follows. `home` is a snapshot's."""
        name = str(uuid.uuid4()) if self.faults.peek("uuid-is-long") else secrets.token_hex(4)
        facts: dict[str, Any] = {"instance": name, "mark": mark_of(keys)}
        change = self.faults.peek("price-changes", spec=order.spec.key)
        made = Instance(
            uuid=name,
            index=free_index(self.living()),
            order=order,
            keys=keys,
            created_at=self.clock.now(),
            boot=self._boot(facts, WORDS if home is None else RESTORING),
            price_factor=float(change["factor"]) if change else 1.0,
            restored_from=order.template if home else "",
        )
        locked = self.faults.take("auth-refused", **facts)
        if locked:
            until = made.opens_at + timedelta(seconds=float(locked["for_s"]))
            made.pending = [(until, key) for key in keys]
        self.all[made.uuid] = made
        self.bill(made)
        self._later(made, lambda: self._make(made, [] if locked else list(keys), home))
        return made

    def bill(self, instance: Instance) -> None:
        self.account.bill(instance.uuid, instance.mark, instance.usd_per_hour, self.clock.now())

    def unbill(self, instance: Instance) -> None:
        self.account.bill(instance.uuid, instance.mark, 0.0, self.clock.now())

    def modify(self, instance: Instance, order: Order) -> None:
        """The disk is kept, what ran is gone; the new price counts from now."""
        stale = self.faults.take("list-stale-after-modify", **instance.facts)
        instance.become(
            order,
            self.clock.now(),
            stale_s=float(stale["for_s"]) if stale else 0.0,
            takes_s=self._options.boot_s,
        )
        instance.open = False
        self.bill(instance)
        self._later(instance, lambda: self.restart_box(instance))

    def delete(self, instance: Instance) -> None:
        """Billing stops at once; the entry stays for a while (§1.7.11, §4)."""
        slow = self.faults.take("delete-slow", **instance.facts)
        now = self.clock.now()
        instance.deleting_at = now
        instance.gone_at = now + timedelta(seconds=float(slow["for_s"]) if slow else LINGER_S)
        instance.open = False
        self.unbill(instance)
        self._later(instance, lambda: _destroy(instance))

    def remove(self, instance: Instance) -> None:
        """It is in no list any more. Repeatable."""
        self.all.pop(instance.uuid, None)
        self.unbill(instance)
        self._later(instance, lambda: _end(instance))

    def add_key(self, instance: Instance, key: str) -> None:
        if key not in instance.keys:
            instance.keys.append(key)
        slow = self.faults.take("add-key-slow", **instance.facts)
        wait_s = float(slow["for_s"]) if slow else 0.0
        instance.pending.append((self.clock.now() + timedelta(seconds=wait_s), key))

    async def copy_home(self, instance: Instance, into: Path) -> None:
        """What a snapshot holds; nothing when there are no real boxes."""
        if instance.work:
            await instance.work
        if instance.box and instance.box.home.is_dir():
            with suppress(shutil.Error):  # of a living box: a file may go while it is copied
                await asyncio.to_thread(shutil.copytree, instance.box.home, into, symlinks=True)

    async def restart_box(self, instance: Instance, *, new_host_key: bool = False) -> None:
        if instance.box is None:
            return
        await instance.box.refuse()
        instance.box.set_gpus(*_gpus(instance.order))
        await instance.box.reboot(wipe=False, new_host_key=new_host_key)
        instance.host_key = instance.box.host_key_pub

    async def settle(self) -> None:
        async with self._settling:
            now = self.clock.now()
            for instance in self.living():
                await self._settle(instance, now)

    async def close(self) -> None:
        """Let what is being done to boxes end; they themselves are ended by who owns them."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, instance: Instance, now: datetime) -> None:
        if instance.gone_at:
            if now >= instance.gone_at:
                self.remove(instance)
            return
        if instance.running_s(now) < 0 or instance.halted or instance.dead:
            return
        if instance.work:
            await instance.work
        await self._open(instance, now)
        _let_in(instance, now)
        await strikes.strike(self, instance, now)
        await self._open(instance, now)

    async def _open(self, instance: Instance, now: datetime) -> None:
        if instance.open or now < instance.opens_at or instance.dead or instance.box is None:
            return
        instance.open = True
        instance.opened_at = instance.opened_at or now
        await instance.box.open()

    def _boot(self, facts: Mapping[str, Any], words: tuple[str, ...]) -> Boot:
        options, take = self._options, self.faults.take
        slow = take("slow-boot", **facts)
        told = take("boot-words", **facts)
        closed = take("running-but-port-closed", **facts)
        unknown = take("status-unknown", **facts)
        return Boot(
            running_s=options.boot_s + (float(slow["more_s"]) if slow else 0.0),
            endpoint_s=options.endpoint_s,
            sshd_s=options.sshd_s + (float(closed["for_s"]) if closed else 0.0),
            words=tuple(str(told["words"]).upper().split(",")) if told else words,
            unknown_s=float(unknown["for_s"]) if unknown else 0.0,
            ends=take("stuck-starting", **facts) is None,
            tells_address=take("no-address", **facts) is None,
        )

    async def _make(self, instance: Instance, keys: list[str], home: Path | None) -> None:
        box = await self._boxes.rent(
            instance.uuid, user=USER, keys=keys, gpus=_gpus(instance.order)
        )
        if self._boxes.real and instance.order.spec.mode == "prototyping":
            noise = self.faults.take("preload-noise", **instance.facts)
            await asyncio.to_thread(virtual.install, box.folder / "etc", noisy=noise is not None)
        if home and home.is_dir() and box.home.is_dir():
            await asyncio.to_thread(
                shutil.copytree, home, box.home, symlinks=True, dirs_exist_ok=True
            )
        instance.box, instance.host_key = box, box.host_key_pub

    def _later(self, instance: Instance, do: Callable[[], Awaitable[None]]) -> None:
        """What is done to one box is done in order, and a request does not wait for it."""
        before = instance.work

        async def work() -> None:
            if before:
                await before
            await do()

        instance.work = asyncio.create_task(work())
        self._tasks.add(instance.work)
        instance.work.add_done_callback(self._tasks.discard)


def _let_in(instance: Instance, now: datetime) -> None:
    """Keys whose time has come."""
    if instance.box is None:
        return
    for at, key in instance.pending:
        if now >= at:
            instance.box.add_key(key)
    instance.pending = [(at, key) for at, key in instance.pending if now < at]


def _gpus(order: Order) -> tuple[str, int]:
    return f"NVIDIA {order.spec.name}", order.spec.count


async def _destroy(instance: Instance) -> None:
    if instance.box:
        await instance.box.refuse()
        await instance.box.kill()


async def _end(instance: Instance) -> None:
    if instance.box:
        await instance.box.end()
