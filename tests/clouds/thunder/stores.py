"""What an account keeps besides instances: snapshots, which bill, and SSH keys (§1.2, §3)."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from clouds.cloud import Call, Options, Routes
from clouds.thunder.catalogue import SNAPSHOT_GB_USD, TEMPLATES
from clouds.thunder.fleet import Fleet
from clouds.thunder.replies import WENT_WRONG, Refusal, error, invalid
from clouds.thunder.sshkeys import checked_key, fingerprint
from clouds.thunder.validate import body_of

MOST_SNAPSHOTS = 50


@dataclass(frozen=True)
class Snapshot:
    """`end` is what CREATING turns into at `made_at`; `home` is what it holds."""

    id: str
    name: str
    disk_gb: int
    created_at: datetime
    made_at: datetime
    end: str
    home: Path

    def status(self, now: datetime) -> str:
        return "CREATING" if now < self.made_at else self.end

    def to_json(self, now: datetime) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status(now),
            "minimumDiskSizeGb": self.disk_gb,
            "createdAt": int(self.created_at.timestamp()),
        }


class Stores:
    def __init__(self, options: Options, fleet: Fleet) -> None:
        self._options = options
        self._fleet = fleet
        self._clock = fleet.clock
        self._account = fleet.account
        self._faults = fleet.faults
        self._snapshots: dict[str, Snapshot] = {}
        self._keys: dict[str, dict[str, Any]] = {}

    def routes(self) -> Routes:
        return {
            ("POST", "/v1/snapshots/create"): self.create,
            ("GET", "/v1/snapshots/list"): self.snapshots,
            ("DELETE", "/v1/snapshots/{id}"): self.drop,
            ("POST", "/v1/keys/add"): self.add_key,
            ("GET", "/v1/keys/list"): self.keys,
            ("DELETE", "/v1/keys/{id}"): self.drop_key,
        }

    def restorable(self) -> Mapping[str, int]:
        """The disk that each READY snapshot needs at least, by name."""
        now = self._clock.now()
        ready = (each for each in self._snapshots.values() if each.status(now) == "READY")
        return {each.name: each.disk_gb for each in ready}

    def home_of(self, template: str) -> Path | None:
        """What an instance made from this template starts with; None for a plain one."""
        found = (each for each in self._snapshots.values() if each.name == template)
        snapshot = next(found, None)
        return snapshot.home if snapshot else None

    async def create(self, call: Call) -> Response:
        body = body_of(call, ("instanceId", "name"), needed=("instanceId", "name"))
        made = self._make(str(body["instanceId"]), str(body["name"]))
        await self._fleet.copy_home(self._fleet.all[str(body["instanceId"])], made.home)
        if self._faults.take("snapshot-500-but-created"):
            return error(500, WENT_WRONG)
        return JSONResponse({"message": "Snapshot creation initiated"}, 202)

    async def snapshots(self, call: Call) -> Response:
        now = self._clock.now()
        return JSONResponse([each.to_json(now) for each in self._snapshots.values()])

    async def drop(self, call: Call) -> Response:
        gone = self._snapshots.pop(call.params["id"], None)
        if gone is None:
            raise Refusal(404, "snapshot not found")
        self._account.bill(_line(gone), "", 0.0, self._clock.now())
        shutil.rmtree(gone.home, ignore_errors=True)
        return JSONResponse({"message": "Snapshot deleted successfully"})

    async def add_key(self, call: Call) -> Response:
        """Kept, and attached to no instance (§1.2)."""
        body = body_of(call, ("name", "public_key"), needed=("name", "public_key"))
        key = checked_key(body["public_key"])
        if any(each["public_key"] == key for each in self._keys.values()):
            raise Refusal(409, "this key is there already")
        made: dict[str, Any] = {
            "id": secrets.token_hex(4),
            "name": str(body["name"]),
            "public_key": key,
            "fingerprint": fingerprint(key),
            "key_type": key.split()[0],
            "created_at": int(self._clock.now().timestamp()),
        }
        self._keys[made["id"]] = made
        return JSONResponse({"key": made, "message": "SSH key added successfully"})

    async def keys(self, call: Call) -> Response:
        return JSONResponse(list(self._keys.values()))

    async def drop_key(self, call: Call) -> Response:
        if self._keys.pop(call.params["id"], None) is None:
            raise Refusal(404, "key not found")
        return JSONResponse({"message": "SSH key deleted successfully"})

    def _make(self, instance: str, name: str) -> Snapshot:
        """By uuid, as Thunder's own client sends it; from RUNNING alone."""
        now = self._clock.now()
        found = self._fleet.all.get(instance)
        if found is None:
            raise Refusal(404, "instance not found")
        if found.status(now) != "RUNNING":
            raise Refusal(409, "the instance must be RUNNING")
        if name in TEMPLATES or any(each.name == name for each in self._snapshots.values()):
            raise Refusal(409, f"the name {name!r} is taken")
        if len(self._snapshots) >= MOST_SNAPSHOTS:
            raise invalid(f"at most {MOST_SNAPSHOTS} snapshots")
        failed, takes_s = self._faults.take("snapshot-fails"), self._options.boot_s
        made = Snapshot(
            id=secrets.token_hex(4),
            name=name,
            disk_gb=found.order.disk_gb,
            created_at=now,
            made_at=now + timedelta(seconds=takes_s),
            end=str(failed["status"]) if failed else "READY",
            home=self._options.folder / "snapshots" / secrets.token_hex(8),
        )
        found.spell("SNAPPING", now, takes_s)
        self._snapshots[made.id] = made
        self._account.bill(_line(made), "", made.disk_gb * SNAPSHOT_GB_USD, now)
        return made


def _line(snapshot: Snapshot) -> str:
    """Its name in the bill."""
    return f"snapshot-{snapshot.id}"
