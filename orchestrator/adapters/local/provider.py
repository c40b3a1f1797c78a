"""The local provider (DESIGN §10): a Provider and nothing else, so that everything above it
reaches the box by ssh, as it would a rented one."""

from __future__ import annotations

import os
import pwd
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from orchestrator.adapters.durable import make_folder, sync_folder, write_whole
from orchestrator.adapters.local import box, life
from orchestrator.adapters.local.folder import Folder, Record, delete
from orchestrator.core.offer import Need, Offer
from orchestrator.errors import Missing, Refused, Transient
from orchestrator.ports import Account, Capabilities, Clock, CreateRequest, Listing, SelfStop

Isolation = Literal["auto", "namespace", "supervisor"]
_ID = re.compile(r"local-[0-9a-f]{8}")


class LocalProvider:
    """Boxes below `root`, one folder each; several processes may use one root.

    `private_home` puts a box's home on a tmpfs that only the box sees; `isolation` is found out
    unless given. The price is 0 unless `usd_per_hour` says what to pretend.
    """

    name = "local"
    capabilities = Capabilities(
        host_keys=True, poll_s=0.5, idle_poll_s=0.5, boot_s={"starting": 30.0}
    )

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        private_home: bool = False,
        usd_per_hour: float = 0.0,
        isolation: Isolation = "auto",
    ) -> None:
        self._root = root.absolute()
        self._clock = clock
        self._private_home = private_home
        self._usd_per_hour = usd_per_hour
        self._isolation = isolation

    def offers(self, need: Need) -> Sequence[Offer]:
        """One offer for each `cpu:N` of the need; this machine rents out no GPU. The disk is
        shared by all boxes and promised to none. Raises Missing when this machine lacks what a box
        is made of."""
        if not any(gpu == "cpu" for gpu, _ in need.gpus):
            return ()
        box.find_tools()
        vcpus, ram_gb = os.cpu_count() or 1, _ram_gb()
        if need.vcpus > vcpus or need.ram_gb > ram_gb:
            return ()
        return tuple(
            Offer("local", f"cpu-{n}", "cpu", n, vcpus, ram_gb, need.disk_gb, self._usd_per_hour)
            for gpu, n in need.gpus
            if gpu == "cpu"
        )

    def create(self, request: CreateRequest) -> str:
        """Returns once sshd listens, a few hundredths of a second later."""
        if request.offer.gpu != "cpu":
            raise Refused(f"The local provider has no {request.offer.gpu}.", hint="use gpu: cpu:N")
        tools = box.find_tools()
        record = self._intent(request)
        make_folder(self._root)
        with self._recorded(record, tools, request.public_key) as (folder, lock):
            life.start(
                folder,
                record,
                lock=lock,
                sshd=tools.sshd,
                private_home=self._private_home,
                clock=self._clock,
            )
        return record.provider_id

    def list(self) -> Listing:
        """A box is RUNNING while its process lives and listens; being made, PENDING; what never
        ran is swept; what ran and died is gone, its folder kept until `terminate`."""
        now = self._clock.now()
        found = [life.observe(folder) for folder in self._folders()]
        return Listing(now, tuple(each for each in found if each is not None))

    def terminate(self, provider_id: str) -> None:
        """Returns when no process of the box is left (≤ 10 s) and its folder is removed."""
        folder = self._folder(provider_id)
        if folder is None:
            return
        with folder.locked(timeout_s=2.0) as lock:
            record = folder.record()
            if record is None:
                return
            if lock is None:
                raise Transient(f"{provider_id} is just being made.", hint="try again in a second")
            life.end(folder, record, self._clock)
            folder.remove()

    def ensure_access(self, provider_id: str, public_key: str) -> None:
        path = self._existing(provider_id).sshd / "authorized_keys"
        keys = path.read_text().splitlines()
        if public_key.strip() not in keys:
            write_whole(path, "".join(f"{key}\n" for key in [*keys, public_key.strip()]).encode())

    def host_keys(self, provider_id: str) -> Sequence[str]:
        text = (self._existing(provider_id).sshd / "host_key.pub").read_text()
        return (" ".join(text.split()[:2]),)

    def logs(self, provider_id: str) -> str:
        folder = self._folder(provider_id)
        return folder.said() if folder else ""

    def account(self) -> Account:
        return Account("local", _account(), note="this machine; nobody bills")

    def key_id(self) -> str:
        return ""

    def self_stop(self, provider_id: str) -> SelfStop | None:
        return None

    def _intent(self, request: CreateRequest) -> Record:
        return Record(
            provider_id=f"local-{secrets.token_hex(4)}",
            instance=request.instance,
            mark=request.mark,
            offer=request.offer.id,
            usd_per_hour=request.offer.usd_per_hour,
            created_at=self._clock.now(),
            user=_account(),
            port=0,
            isolation=self._choose_isolation(),
        )

    def _choose_isolation(self) -> str:
        chosen = self._isolation
        if chosen == "auto":
            chosen = "namespace" if box.has_namespaces() else "supervisor"
        if chosen == "supervisor" and self._private_home:
            raise Missing(
                "A private home needs a mount namespace, and this machine refuses one.",
                hint="run as root, or: sudo sysctl kernel.unprivileged_userns_clone=1",
            )
        return chosen

    @contextmanager
    def _recorded(
        self, record: Record, tools: box.Tools, public_key: str
    ) -> Iterator[tuple[Folder, int]]:
        """The instance's folder with its lock held, for `list` to see from here on; removed,
        with whatever runs in it, when the block fails."""
        final = Folder(self._root / record.provider_id)
        draft = Folder(self._root / f".new-{record.provider_id}")
        draft.path.mkdir(mode=0o700)
        with draft.locked() as lock:
            if lock is None:
                raise Transient(f"{draft.path} was swept away while it was made.")
            try:
                box.write_keys(draft, tools, public_key)
                box.write_files(draft, final, record)
                draft.write(record)
                draft.path.rename(final.path)
                sync_folder(self._root)
                yield final, lock
            except BaseException:
                life.end(final, record, self._clock)
                final.remove()
                draft.remove()
                raise

    def _folders(self) -> Iterator[Folder]:
        """Folders of instances; what a crash left half made or half removed is swept."""
        try:
            paths = sorted(self._root.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise Transient(f"{self._root} cannot be read: {error.strerror}.") from error
        for path in paths:
            if _ID.fullmatch(path.name):
                yield Folder(path)
            elif path.name.startswith(".gone-"):
                delete(path)
            elif path.name.startswith(".new-"):
                _sweep(Folder(path))

    def _folder(self, provider_id: str) -> Folder | None:
        known = _ID.fullmatch(provider_id) and (self._root / provider_id).is_dir()
        return Folder(self._root / provider_id) if known else None

    def _existing(self, provider_id: str) -> Folder:
        folder = self._folder(provider_id)
        if folder is None:
            raise Transient(f"The local provider has no instance {provider_id!r} (any more).")
        return folder


def _sweep(draft: Folder) -> None:
    with draft.locked() as lock:
        if lock is not None:
            draft.remove()


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise Missing(
            f"User id {os.geteuid()} has no account here, and sshd lets only accounts in.",
            hint="run as a user of /etc/passwd",
        ) from error


def _ram_gb() -> int:
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
