"""What the agents say: facts into the ledger, the files that grow into files, heartbeats in
memory."""

from __future__ import annotations

import base64
import errno
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.core.facts import to_event
from orchestrator.core.redact import Redactor
from orchestrator.core.run import Lease
from orchestrator.errors import LedgerError, StaleLease, StorageBlocked
from orchestrator.ports import Clock, Ledger
from remote.contract import ContractError, Fact, check_integer

log = logging.getLogger(__name__)

FILES = ("log", "metrics.jsonl", "sights.jsonl")
# What a box may fill here: a hostile or broken one must not fill the disk.
MAX_FILE_BYTES = 2 * 1024**3
MAX_FACTS = 20_000
MAX_PULSE_BYTES = 16 * 1024
STILL_S = 60.0
PROBE_BYTES = 128 * 1024
_REASONS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "full"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "read-only"),
}


@dataclass(frozen=True)
class Heard:
    """The last time an agent's pulse was told, and what it was."""

    at: datetime
    alive: bool
    pulse: Mapping[str, Any]


class Link:
    """One run's ear. After a reconnect nothing is lost and nothing counts twice."""

    def __init__(
        self, lease: Lease, ledger: Ledger, clock: Clock, folder: Path, redactor: Redactor
    ) -> None:
        self._lease = lease
        self._ledger = ledger
        self._clock = clock
        self._folder = folder
        self._redactor = redactor
        self._heard: dict[str, Heard] = {}
        self._news_at: dict[str, datetime] = {}
        self._deaf: set[str] = set()
        self._blocked: StorageBlocked | None = None
        self._facts: dict[str, int] = {}
        self._silent: dict[str, datetime] = {}

    def offsets(self, instance: str) -> tuple[int, int, int, int]:
        """Where to go on reading the box's events, log, metrics and sights."""
        log, metrics, sights = (self._size(instance, name) for name in FILES)
        return self._ledger.fact_offset(self._lease.run, instance), log, metrics, sights

    def take_in(self, instance: str, said: Sequence[Mapping[str, Any]]) -> bool:
        """Record what a box said; whether it said anything and all of it was heard.

        A line that is wrong is passed over. When this side fails (a full disk, a locked ledger),
        nothing more is stored until a new link begins where the ledger ends: `is_deaf` says so.
        The box is not silent for that."""
        if said:
            self._silent.pop(instance, None)
        for each in said:
            try:
                self._take_in_one(instance, each)
            except StaleLease:
                raise
            except (OSError, LedgerError) as error:
                log.error("%s: what it says cannot be stored: %s", instance, error)
                self._deaf.add(instance)
                if isinstance(error, OSError):
                    self._blocked = _blocked(error, self._folder)
            except Exception as error:
                log.warning("%s: the box said something wrong: %r", instance, error)
        return bool(said) and instance not in self._deaf

    def blocked(self) -> StorageBlocked | None:
        """Why the disk here did not take what a box said; told once."""
        said, self._blocked = self._blocked, None
        return said

    def is_deaf(self, instance: str) -> bool:
        return instance in self._deaf

    def ended(self, instance: str) -> None:
        """The connection is gone; the box may be silent from now on."""
        self._deaf.discard(instance)
        self._silent.setdefault(instance, self._clock.now())

    def agent_started(self, instance: str) -> None:
        """What was heard before a start says nothing about the agent of now."""
        self._heard.pop(instance, None)
        self._news_at.pop(instance, None)

    def agent_alive(self, instance: str) -> bool | None:
        heard = self._heard.get(instance)
        return heard.alive if heard else None

    def silent(self) -> Mapping[str, datetime]:
        """Since when each box has not been heard; one that tells nothing new is silent: the pulse
        of an agent that hangs stands still."""
        limit = timedelta(seconds=STILL_S)
        now = self._clock.now()
        still = {name: at for name, at in self._news_at.items() if now - at > limit}
        return {**still, **self._silent}

    def heartbeats(self) -> Mapping[str, Any]:
        return {instance: dict(heard.pulse) for instance, heard in self._heard.items()}

    def _take_in_one(self, instance: str, said: Mapping[str, Any]) -> None:
        if "heartbeat" in said:
            self._pulse(instance, said["heartbeat"] or {}, alive=said["agent_alive"] is True)
        elif instance in self._deaf:
            return
        elif said["file"] == "events":
            self._fact(instance, said)
        else:
            name = dict(zip(("log", "metrics", "sights"), FILES, strict=True))[said["file"]]
            self._bytes(instance, name, said["offset"], base64.b64decode(said["data"]))

    def _pulse(self, instance: str, pulse: Any, *, alive: bool) -> None:
        if not isinstance(pulse, dict) or len(json.dumps(pulse)) > MAX_PULSE_BYTES:
            raise ContractError("a heartbeat that is none")
        now, before = self._clock.now(), self._heard.get(instance)
        if before is None or before.pulse.get("at") != pulse.get("at"):
            self._news_at[instance] = now
        self._heard[instance] = Heard(now, alive, pulse)

    def _fact(self, instance: str, said: Mapping[str, Any]) -> None:
        told = self._facts[instance] = self._facts.get(instance, 0) + 1
        if told > MAX_FACTS:
            raise ContractError(f"more than {MAX_FACTS} facts")
        fact = Fact.decode(json.dumps(said["line"]).encode())
        if fact.instance != instance:
            raise ContractError(f"{instance} told a fact of {fact.instance}")
        try:
            event = to_event(self._ledger.run(self._lease.run), fact)
        except ContractError as error:
            log.warning("%s: refused fact %s: %s", instance, fact.kind, error)
            event = None
        if event:
            event = (event[0], self._redactor.words(event[1]))
        end = check_integer(said["end"])
        if self._ledger.append_fact(self._lease.run, fact, end, event, epoch=self._lease.epoch):
            self._news_at[instance] = self._clock.now()

    def _bytes(self, instance: str, name: str, offset: int, data: bytes) -> None:
        size = self._size(instance, name)
        if check_integer(offset) > size:
            raise ContractError(f"{name} goes on at {offset!r}, and {size} bytes are here")
        if size >= MAX_FILE_BYTES:
            return
        path = self._path(instance, name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        # A secret may be split over two reads: look again at the end of what is here.
        back = min(size, max(0, self._redactor.longest - 1))
        with path.open("r+b") as file:
            file.seek(size - back)
            seen = file.read(back)
            file.seek(size - back)
            file.write(self._redactor.data(seen + data[size - offset :]))
        if offset + len(data) > size:
            self._news_at[instance] = self._clock.now()

    def _size(self, instance: str, name: str) -> int:
        path = self._path(instance, name)
        return path.stat().st_size if path.exists() else 0

    def _path(self, instance: str, name: str) -> Path:
        return self._folder / instance / name


def probe(folder: Path) -> None:
    """Write as much as a box says at once, to know whether it can be. Raises StorageBlocked."""
    path = folder / ".room"
    try:
        path.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        raise _blocked(error, folder) from error
    finally:
        with suppress(OSError):
            path.unlink()


def _blocked(error: OSError, folder: Path) -> StorageBlocked:
    return StorageBlocked(
        f"What the boxes say cannot be stored in {folder} ({error.strerror or error}). Nothing is "
        "lost: it is read again from there on.",
        hint=f"free some space: df -h {folder}; it is tried again by itself",
        reason=_REASONS.get(error.errno or 0, "failing"),
    )
