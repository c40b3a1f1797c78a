"""What the agents say: facts into the ledger, log and metrics into files, heartbeats in memory."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.core.facts import to_event
from orchestrator.core.redact import Redactor
from orchestrator.core.run import Lease
from orchestrator.errors import LedgerError, StaleLease
from orchestrator.ports import Clock, Ledger
from remote.contract import ContractError, Fact, check_integer

log = logging.getLogger(__name__)

FILES = ("log", "metrics.jsonl")
# What a box may fill here: a hostile or broken one must not fill the disk.
MAX_FILE_BYTES = 2 * 1024**3
MAX_FACTS = 20_000
MAX_PULSE_BYTES = 16 * 1024
STILL_S = 60.0


@dataclass(frozen=True)
class Heard:
    """The last time a box was heard, and what its agent's pulse was."""

    at: datetime
    alive: bool
    pulse: Mapping[str, Any]
    changed_at: datetime


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
        self._deaf: set[str] = set()
        self._facts: dict[str, int] = {}
        self._silent: dict[str, datetime] = {}

    def offsets(self, instance: str) -> tuple[int, int, int]:
        """Where to go on reading the box's events, log and metrics."""
        sizes = [self._size(instance, name) for name in FILES]
        return self._ledger.fact_offset(self._lease.run, instance), sizes[0], sizes[1]

    def take_in(self, instance: str, said: Sequence[Mapping[str, Any]]) -> bool:
        """Record what a box said; whether it said anything that was heard.

        A line that is wrong is passed over. When this side fails (a full disk, a locked ledger),
        nothing more is heard until a new link begins where the ledger ends: `is_deaf` says so."""
        if instance in self._deaf:
            return False
        for each in said:
            try:
                self._take_in_one(instance, each)
            except StaleLease:
                raise
            except (OSError, LedgerError) as error:
                log.error("%s: what it says cannot be stored: %s", instance, error)
                self._deaf.add(instance)
                return False
            except Exception as error:
                log.warning("%s: the box said something wrong: %r", instance, error)
        if said:
            self._silent.pop(instance, None)
        return bool(said)

    def is_deaf(self, instance: str) -> bool:
        return instance in self._deaf

    def ended(self, instance: str) -> None:
        """The connection is gone; the box may be silent from now on."""
        self._deaf.discard(instance)
        self._silent.setdefault(instance, self._clock.now())

    def agent_started(self, instance: str) -> None:
        """What was heard before a start says nothing about the agent of now."""
        self._heard.pop(instance, None)

    def agent_alive(self, instance: str) -> bool | None:
        heard = self._heard.get(instance)
        return heard.alive if heard else None

    def silent(self) -> Mapping[str, datetime]:
        """Since when each box has not been heard; an agent whose pulse stands still is silent."""
        limit = timedelta(seconds=STILL_S)
        now = self._clock.now()
        still = {
            name: heard.changed_at
            for name, heard in self._heard.items()
            if now - heard.changed_at > limit
        }
        return {**still, **self._silent}

    def heartbeats(self) -> Mapping[str, Any]:
        return {instance: dict(heard.pulse) for instance, heard in self._heard.items()}

    def _take_in_one(self, instance: str, said: Mapping[str, Any]) -> None:
        if "heartbeat" in said:
            self._pulse(instance, said["heartbeat"] or {}, alive=said["agent_alive"] is True)
        elif said["file"] == "events":
            self._fact(instance, said)
        else:
            name = {"log": "log", "metrics": "metrics.jsonl"}[said["file"]]
            self._bytes(instance, name, said["offset"], base64.b64decode(said["data"]))

    def _pulse(self, instance: str, pulse: Any, *, alive: bool) -> None:
        if not isinstance(pulse, dict) or len(json.dumps(pulse)) > MAX_PULSE_BYTES:
            raise ContractError("a heartbeat that is none")
        now, before = self._clock.now(), self._heard.get(instance)
        same = before is not None and before.pulse.get("at") == pulse.get("at")
        changed_at = before.changed_at if before and same else now
        self._heard[instance] = Heard(now, alive, pulse, changed_at)

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
        self._ledger.append_fact(
            self._lease.run, fact, check_integer(said["end"]), event, epoch=self._lease.epoch
        )

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

    def _size(self, instance: str, name: str) -> int:
        path = self._path(instance, name)
        return path.stat().st_size if path.exists() else 0

    def _path(self, instance: str, name: str) -> Path:
        return self._folder / instance / name
