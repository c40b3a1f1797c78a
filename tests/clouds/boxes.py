"""The machines that an emulated cloud rents out: real boxes of this machine, each behind a public
port of its own, which can be rebooted, lose their network, or turn into somebody else."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from clouds import likeness
from clouds.door import Door
from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.local import box as local
from orchestrator.adapters.local import life
from orchestrator.adapters.local.folder import Folder, Record, delete

Gpus = tuple[str, int]
NO_GPUS: Gpus = ("", 0)
CLOCK = SystemClock()


class Boxes:
    """All boxes of one cloud, below `folder`. Not `real`: addresses only, nothing behind them."""

    def __init__(self, folder: Path, *, real: bool) -> None:
        self.folder = folder.absolute()
        self.real = real
        self._boxes: dict[str, Box] = {}
        if real:
            local.find_tools()
            if not local.has_namespaces():
                raise RuntimeError("real boxes need namespaces; start the cloud with --boxes none")

    async def rent(
        self,
        name: str,
        *,
        user: str,
        keys: Sequence[str],
        gpus: Gpus = NO_GPUS,
        etc: Mapping[str, bytes] | None = None,
        login: bytes = b"",
        port: int = 0,
    ) -> Box:
        """A box whose sshd listens, behind a door that is closed yet. `login` is what its
        interactive shells read first (~/.bashrc); `port` asks for a public port by number."""
        if not self.real:
            return self._keep(name, Box(Folder(self.folder / name), user, port))
        made = RealBox(Folder(self.folder / name), user, port, login)
        self._keep(name, made)
        await asyncio.to_thread(made.make, keys, gpus, dict(etc or {}))
        return made

    async def close(self) -> None:
        """End every box. Repeatable."""
        for each in list(self._boxes.values()):
            await each.end()
        if self.real:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _keep(self, name: str, made: Box) -> Box:
        self._boxes[name] = made
        return made


class Box:
    """Nothing but an address that refuses: what there is without real boxes."""

    pid: int | None = None
    host_key_pub = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="

    def __init__(self, folder: Folder, user: str, port: int = 0) -> None:
        self._folder = folder
        self._door: Door | None = Door(port)
        self.user = user

    @property
    def port(self) -> int:
        """The public port, on 127.0.0.1; 0 when the box has ended."""
        return self._door.port if self._door else 0

    @property
    def folder(self) -> Path:
        return self._folder.path

    @property
    def home(self) -> Path:
        return self._folder.home

    def fingerprints(self) -> list[str]:
        """Of its host keys: "SHA256:…" and the kind, as `ssh-keygen -l` names them."""
        return [f"{likeness.fingerprint(self.host_key_pub)} (ED25519)"]

    async def open(self) -> None: ...

    async def refuse(self) -> None: ...

    async def silence(self) -> None: ...

    async def move(self) -> None:
        """Another public port, as refusing or open as the one before; that one is cut."""
        if self._door:
            before, self._door = self._door, Door()
            await before.close()

    async def reboot(self, *, wipe: bool, new_host_key: bool) -> None:
        """End all its processes and start it again; with `wipe`, its home is as new."""

    async def kill(self) -> None:
        """End all its processes: the host is gone, the address is not."""

    async def cut(self) -> None:
        """End every open connection; new ones are welcome."""

    async def impostor(self) -> None:
        """From now on somebody else answers at its address, with another host key."""

    def lock(self) -> None:
        """Let nobody in: authorized_keys is empty."""

    def unlock(self) -> None: ...

    def add_key(self, key: str) -> None: ...

    def set_gpus(self, model: str, count: int) -> None: ...

    def write_etc(self, name: str, content: bytes) -> None:
        """Change a file of its /etc, under whatever runs."""

    def warn(self) -> None:
        """SIGTERM to everything but its ssh server."""

    async def end(self) -> None:
        """Repeatable."""
        if self._door:
            before, self._door = self._door, None
            await before.close()


class RealBox(Box):
    """A box made as the local provider makes its own. One lock keeps its changes in a row."""

    def __init__(self, folder: Folder, user: str, port: int = 0, login: bytes = b"") -> None:
        super().__init__(folder, user, port)
        self._login = login
        self._keys: list[str] = []
        self._sshd = local.find_tools().sshd
        self._open = False
        self._false: RealBox | None = None
        self._changing = asyncio.Lock()

    @property
    def pid(self) -> int | None:  # type: ignore[override]
        """The one process that all others die with; None when it is dead."""
        identity = self._folder.identity()
        return identity.pid if identity and identity.alive else None

    @property
    def host_key_pub(self) -> str:  # type: ignore[override]
        text = (self._folder.sshd / "host_key.pub").read_text()
        return " ".join(text.split()[:2])

    def make(self, keys: Sequence[str], gpus: Gpus, etc: Mapping[str, bytes]) -> None:
        """Blocks for some tenths of a second."""
        folder = self._folder
        folder.path.mkdir(parents=True, mode=0o700)
        tools = local.find_tools()
        local.write_keys(folder, tools, "\n".join(keys))
        self._keys = [key.strip() for key in keys]
        programs = folder.path / "bin"
        programs.mkdir()
        self.set_gpus(*gpus)
        extras = local.Extras({"passwd": likeness.passwd(self.user, folder.home), **etc}, programs)
        record = likeness.record(folder, self.user)
        local.write_files(folder, folder, record, extras)
        self._dress()
        self._start(record)

    async def open(self) -> None:
        self._open = True
        if self._door:
            await self._door.open(self._target())

    async def refuse(self) -> None:
        self._open = False
        if self._door:
            await self._door.refuse()

    async def silence(self) -> None:
        await self.open()
        if self._door:
            self._door.silence()

    async def move(self) -> None:
        await super().move()
        if self._open:
            await self.open()

    async def reboot(self, *, wipe: bool, new_host_key: bool) -> None:
        async with self._changing:
            if self._false:
                await self._false.end()
                self._false = None
            await asyncio.to_thread(self._reboot, wipe=wipe, new_host_key=new_host_key)
            if self._open:
                await self.open()

    async def cut(self) -> None:
        if self._door:
            await self._door.cut()

    async def kill(self) -> None:
        async with self._changing:
            await asyncio.to_thread(self._stop)

    async def impostor(self) -> None:
        false = Folder(self.folder.with_name(f"{self.folder.name}-impostor"))
        self._false = RealBox(false, self.user)
        await asyncio.to_thread(self._false.make, [], NO_GPUS, {})
        await self.open()

    def lock(self) -> None:
        self._write_keys([])

    def unlock(self) -> None:
        self._write_keys(self._keys)

    def add_key(self, key: str) -> None:
        self._keys.append(key.strip())
        self._write_keys(self._keys)

    def set_gpus(self, model: str, count: int) -> None:
        path = self.folder / "bin" / "nvidia-smi"
        path.write_text(likeness.nvidia_smi(model, count))
        path.chmod(0o755)

    def write_etc(self, name: str, content: bytes) -> None:
        (self.folder / "etc" / name).write_bytes(content)

    def warn(self) -> None:
        record = self._folder.record()
        for pid in life.members(self._folder, record) if record else []:
            with suppress(OSError):
                if not (Path("/proc") / str(pid) / "comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGTERM)

    async def end(self) -> None:
        await super().end()
        if self._false:
            await self._false.end()
        async with self._changing:
            await asyncio.to_thread(self._stop)
            if self.folder.exists():
                await asyncio.to_thread(self._folder.remove)

    def _target(self) -> int:
        record = (self._false or self)._folder.record()
        return record.port if record else 1  # no folder, no box: port 1 refuses

    def _reboot(self, *, wipe: bool, new_host_key: bool) -> None:
        self._stop()
        if wipe:
            delete(self.home)
            self.home.mkdir(mode=0o700)
            self._dress()
        if new_host_key:
            likeness.new_host_key(self._folder)
        record = self._folder.record()
        if record:
            self._start(record)

    def _dress(self) -> None:
        if self._login:
            (self.home / ".bashrc").write_bytes(self._login)

    def _start(self, record: Record) -> None:
        with self._folder.locked(timeout_s=2.0) as lock:
            assert lock is not None
            life.start(
                self._folder,
                record,
                lock=lock,
                sshd=self._sshd,
                private_home=False,
                clock=CLOCK,
            )

    def _stop(self) -> None:
        record = self._folder.record()
        if record:
            life.end(self._folder, record, CLOCK)

    def _write_keys(self, keys: Sequence[str]) -> None:
        path = self._folder.sshd / "authorized_keys"
        path.write_text("".join(f"{key}\n" for key in keys))
