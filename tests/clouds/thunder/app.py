"""Thunder Compute's API over HTTP (reference/thunder.md §1)."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, Response

from clouds.account import windows
from clouds.clock import iso
from clouds.cloud import Call, Cloud, Options, Routes
from clouds.schema import Schema
from clouds.serving import CutShort
from clouds.thunder import catalogue
from clouds.thunder.catalogue import SPECS, TEMPLATES
from clouds.thunder.faults import FAULTS
from clouds.thunder.instances import Instance, Life

PUBLIC = ("/v2/pricing", "/v2/specs", "/v2/status", "/v1/thunder-templates")
FIELDS = {
    "gpu_type",
    "num_gpus",
    "cpu_cores",
    "disk_size_gb",
    "template",
    "public_key",
    "mode",  # gone from the API in 2026 and still sent by some: accepted, and means nothing
}
LOST_KEYS = "container-restarts-keys-lost"


def cloud(options: Options) -> Cloud:
    return Thunder(options)


def _amend(document: dict[str, Any]) -> None:
    """The published file is from before `mode` went and before a key was optional."""
    schemas = document["components"]["schemas"]
    schemas["thundertypes.InstanceCreateRequest"]["required"].remove("mode")
    schemas["thundertypes.InstanceCreateResponse"]["required"].remove("key")
    for path in document["paths"].values():
        path.get("get", {}).pop("requestBody", None)  # generated: a GET has none
        for operation in path.values():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                # Generated too: "any object, or exactly this one" fits nothing that is this one.
                media["schema"] = media["schema"].get("oneOf", [media["schema"]])[-1]


class Thunder(Cloud):
    name = "thunder"

    def __init__(self, options: Options) -> None:
        super().__init__(
            options,
            faults=FAULTS,
            schema=Schema("thunder-openapi-v1.json", prefix="/v1", amend=_amend),
            unit_s=60.0,
            windows=tuple(windows(options.requests_per_minute)),
        )
        self._instances: dict[str, Instance] = {}
        self._snapshots: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, dict[str, Any]] = {}
        self._settling = asyncio.Lock()

    def routes(self) -> Routes:
        one = "/v1/instances/{id}"
        return {
            ("GET", "/v1/instances/list"): self.list_all,
            ("POST", "/v1/instances/create"): self.create,
            ("POST", f"{one}/delete"): self.delete,
            ("POST", f"{one}/modify"): self.modify,
            ("POST", f"{one}/add_key"): self.add_key,
            ("PATCH", f"{one}/ports"): self.ports,
            ("POST", "/v1/snapshots/create"): self.snapshot,
            ("GET", "/v1/snapshots/list"): self.snapshots,
            ("DELETE", "/v1/snapshots/{id}"): self.drop_snapshot,
            ("POST", "/v1/keys/add"): self.save_key,
            ("GET", "/v1/keys/list"): self.saved_keys,
            ("DELETE", "/v1/keys/{id}"): self.drop_key,
            ("GET", "/v1/auth/validate"): self.validate,
            ("GET", "/v1/thunder-templates"): self.templates,
            ("GET", "/v2/specs"): self.specs,
            ("GET", "/v2/pricing"): self.pricing,
            ("GET", "/v2/status"): self.status,
        }

    # What holds for every call

    async def guard(self, call: Call) -> Response | None:
        """The edge first, and then the key: a client without a name gets no further."""
        agent = call.headers.get("user-agent", "")
        blocked = not agent or agent.lower().startswith("python-urllib")
        if blocked or self.faults.take("forbidden-no-user-agent"):
            return by_fault(HTMLResponse("<html><body>403 Forbidden</body></html>", 403))
        if call.path in PUBLIC:
            return None
        right = call.headers.get("authorization") == f"Bearer {self.account.key}"
        if not right or self.faults.peek("token-revoked"):
            return self.problem(401, "Unauthorized")
        _, full = self.account.ask()
        if full or self.faults.take("rate-limited"):
            return self.problem(429, "Too many requests. Please try again later.")
        if self.faults.take("html-502", path=call.path):
            return by_fault(HTMLResponse("<html><body>502 Bad Gateway</body></html>", 502))
        return None

    def who(self, call: Call) -> str:
        right = call.headers.get("authorization") == f"Bearer {self.account.key}"
        return "account" if right else "nobody"

    def problem(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        slug = {
            400: "invalid_request",
            401: "unauthorized",
            404: "not_found",
            405: "method_not_allowed",
            409: "conflict",
            429: "rate_limit_exceeded",
            500: "internal",
        }.get(status, "error")
        return self.error(status, slug, detail, headers)

    def error(
        self, status: int, slug: str, message: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        body = {"code": status, "error": slug, "message": message}
        return by_fault(JSONResponse(body, status, headers=dict(headers or {})))

    async def settle(self) -> None:
        async with self._settling:
            for instance in list(self._instances.values()):
                await self._settle_one(instance)

    def instances(self) -> list[dict[str, Any]]:
        now = self.clock.now()
        return [
            {
                "id": each.uuid,
                "index": each.index,
                "mark": each.mark,
                "status": each.status(now),
                "usd_per_hour": each.usd_per_hour,
                "pid": each.box.pid,
                "folder": str(each.box.folder),
                "host": "127.0.0.1",
                "port": each.box.port,
            }
            for each in self._instances.values()
        ]

    async def end(self, instance: str) -> bool:
        found = self._instances.get(instance)
        if found is None:
            return False
        await self._end(found)
        return True

    # Instances

    async def list_all(self, call: Call) -> Response:
        now = self.clock.now()
        if self.faults.peek("index-moves"):
            self._renumber()
        listed = {str(each.index): each.to_json(now) for each in self._listed()}
        oldest_s = max((each.running_s(now) for each in self._instances.values()), default=-1.0)
        if oldest_s >= 0 and self.faults.take("list-empty-once", since_s=oldest_s):
            listed = {}
        if self.faults.take("list-cut-short"):
            return by_fault(CutShort(status_code=200))
        return JSONResponse(listed)

    async def create(self, call: Call) -> Response:
        wrong = self._refusal(call)
        if wrong:
            return wrong
        if self.faults.take("create-500"):
            return self.problem(500, "Something went wrong")
        made = await self._rent(call.body)
        answer: dict[str, Any] = {"identifier": made.index, "uuid": made.uuid}
        if not call.body.get("public_key") and not self.faults.take("key-missing-in-reply"):
            private, public = _key_pair()
            made.keys.append(public)
            made.box.add_key(public)
            answer["key"] = private
        if self.faults.take("create-500-but-created"):
            return self.problem(500, "Something went wrong")
        hang = self.faults.take("create-hangs-but-created")
        if hang:
            await asyncio.sleep(float(hang["for_s"]))
        if self.faults.take("create-cut-short"):
            return by_fault(CutShort(status_code=201))
        return JSONResponse(answer, 201)

    async def delete(self, call: Call) -> Response:
        found = self._find(call)
        if found is None or found.deleting_at:
            return self.problem(404, "instance not found")
        if self.faults.take("delete-500"):
            return self.problem(500, "Something went wrong")
        # Billing stops at once; the entry may stay for a while (reference §4, §1.7.11).
        found.deleting_at = self.clock.now()
        self.account.bill(found.uuid, found.mark, 0.0, self.clock.now())
        await found.box.refuse()
        return JSONResponse({"message": "Success"})

    async def modify(self, call: Call) -> Response:
        found = self._find(call)
        if found is None:
            return self.problem(404, "instance not found")
        now = self.clock.now()
        if found.status(now) != "RUNNING":
            return self.problem(409, "instance is not running")
        body = call.body or {}
        disk = int(body.get("disk_size_gb", found.disk_gb))
        if disk < found.disk_gb or disk > found.plan.disk[1]:
            return self.error(400, "validation_error", "validation: the disk can only grow")
        if self.faults.peek("list-stale-after-modify"):
            found.shown = {"storage": found.disk_gb, "cpuCores": str(found.vcpus)}
        found.disk_gb, found.modified_at = disk, now
        self.account.bill(found.uuid, found.mark, found.usd_per_hour, now)
        return JSONResponse({"identifier": str(found.index), "instance_name": found.uuid})

    async def add_key(self, call: Call) -> Response:
        found = self._find(call)
        if found is None:
            return self.problem(404, "instance not found")
        key = (call.body or {}).get("public_key")
        private = None
        if not key:
            private, key = _key_pair()
        elif not _is_one_line(key):
            return self.error(400, "validation_error", "validation: invalid public key")
        if key not in found.keys:
            found.keys.append(key)
        found.box.unlock()
        found.box.add_key(key)
        answer: dict[str, Any] = {"success": True, "uuid": found.uuid}
        return JSONResponse(answer | ({"key": private} if private else {}))

    async def ports(self, call: Call) -> Response:
        found = self._find(call)
        if found is None:
            return self.problem(404, "instance not found")
        wanted = (call.body or {}).get("add_ports", [])
        if any(not isinstance(port, int) or port == 22 or port < 1 for port in wanted):
            return self.error(400, "validation_error", "validation: invalid port")
        answer = {"identifier": str(found.index), "instance_name": found.uuid}
        return JSONResponse({**answer, "http_ports": wanted})

    # The rest of the account

    async def snapshot(self, call: Call) -> Response:
        body = call.body or {}
        found = self._instances.get(str(body.get("instanceId")))
        if found is None or found.status(self.clock.now()) != "RUNNING":
            return self.problem(409, "instance is not running")
        name = str(body.get("name", ""))
        failed = self.faults.take("snapshot-fails") is not None
        self._snapshots[name] = {
            "id": secrets.token_hex(4),
            "name": name,
            "minimumDiskSizeGb": found.disk_gb,
            "createdAt": int(self.clock.now().timestamp()),
            "at": self.clock.now(),
            "end": "FAILED" if failed else "READY",
        }
        return JSONResponse({"message": "Snapshot creation initiated"}, 202)

    async def snapshots(self, call: Call) -> Response:
        now = self.clock.now()
        told = []
        for each in self._snapshots.values():
            made = now - each["at"] >= timedelta(seconds=self.options.boot_s)
            shown = {key: value for key, value in each.items() if key not in ("at", "end")}
            told.append({**shown, "status": each["end"] if made else "CREATING"})
        return JSONResponse(told)

    async def drop_snapshot(self, call: Call) -> Response:
        name = next((n for n, s in self._snapshots.items() if s["id"] == call.params["id"]), None)
        if name is None:
            return self.problem(404, "snapshot not found")
        del self._snapshots[name]
        return JSONResponse({"message": "Snapshot deleted successfully"})

    async def save_key(self, call: Call) -> Response:
        body = call.body or {}
        key = str(body.get("public_key", ""))
        if not _is_one_line(key):
            return self.error(400, "validation_error", "validation: invalid public key")
        if any(each["public_key"] == key for each in self._keys.values()):
            return self.problem(409, "key exists")
        made = {
            "id": secrets.token_hex(4),
            "name": str(body.get("name", "")),
            "public_key": key,
            "fingerprint": "",
            "key_type": key.split()[0],
            "created_at": int(self.clock.now().timestamp()),
        }
        self._keys[made["id"]] = made
        return JSONResponse({"key": made, "message": "SSH key added successfully"})

    async def saved_keys(self, call: Call) -> Response:
        return JSONResponse(list(self._keys.values()))

    async def drop_key(self, call: Call) -> Response:
        if self._keys.pop(call.params["id"], None) is None:
            return self.problem(404, "key not found")
        return JSONResponse({"message": "SSH key deleted successfully"})

    async def validate(self, call: Call) -> Response:
        return JSONResponse({"valid": True, "email": "you@example.org", "org_name": "example"})

    async def templates(self, call: Call) -> Response:
        return JSONResponse(catalogue.templates_json())

    async def specs(self, call: Call) -> Response:
        return JSONResponse(catalogue.specs_json())

    async def pricing(self, call: Call) -> Response:
        return JSONResponse(catalogue.pricing_json())

    async def status(self, call: Call) -> Response:
        out = {key for key in SPECS if self.faults.peek("no-capacity", spec=key)}
        return JSONResponse(catalogue.status_json(frozenset(out)))

    # How it is done

    def _refusal(self, call: Call) -> Response | None:
        """Why a create is refused; None lets it through."""
        body = call.body
        if not isinstance(body, dict) or set(body) - FIELDS:
            strange = sorted(set(body) - FIELDS) if isinstance(body, dict) else ["body"]
            return self.error(400, "invalid_request", f"unknown: {', '.join(strange)}")
        spec = SPECS.get(f"{str(body.get('gpu_type', '')).lower()}_x{body.get('num_gpus')}")
        if spec is None:
            return self.error(400, "invalid_request", "validation: invalid gpu_type or num_gpus")
        vcpus, disk = body.get("cpu_cores"), body.get("disk_size_gb")
        if vcpus not in spec.vcpus or self.faults.take("vcpu-rejected"):
            options = " ".join(str(each) for each in spec.vcpus)
            what = f"validation: invalid vCPU count {vcpus}; valid options: [{options}]"
            return self.error(400, "validation_error", what)
        if not isinstance(disk, int) or not spec.disk[0] <= disk <= spec.disk[1]:
            return self.error(400, "invalid_request", f"validation: invalid disk size {disk}")
        if body.get("template") not in TEMPLATES and body.get("template") not in self._snapshots:
            return self.error(400, "invalid_request", "validation: unknown template")
        key = body.get("public_key")
        if key is not None and not _is_one_line(key):
            return self.error(400, "validation_error", "validation: invalid public key")
        if self.faults.peek("payment-required"):
            return self.error(400, "invalid_request", "Payment required: add a payment method")
        if self.faults.take("no-capacity", spec=spec.key):
            return self.error(400, "invalid_request", f"{spec.key} could not be placed")
        return None

    async def _rent(self, body: Mapping[str, Any]) -> Instance:
        spec = SPECS[f"{body['gpu_type'].lower()}_x{body['num_gpus']}"]
        uuid, key = secrets.token_hex(4), body.get("public_key")
        keys = [key] if key else []
        now = self.clock.now()
        made = Instance(
            uuid=uuid,
            index=self._free_index(),
            spec=spec.key,
            vcpus=body["cpu_cores"],
            disk_gb=body["disk_size_gb"],
            template=body["template"],
            keys=keys,
            created_at=now,
            life=self._life(),
            box=await self.boxes.rent(
                uuid, user="ubuntu", keys=keys, gpus=(f"NVIDIA {spec.name}", spec.count)
            ),
        )
        made.created_at = now
        if made.life.unlock_s:
            made.box.lock()
        self._instances[uuid] = made
        self.account.bill(uuid, made.mark, made.usd_per_hour, now)
        return made

    def _life(self) -> Life:
        options = self.options
        slow = self.faults.take("slow-boot")
        running_s = options.boot_s + (float(slow["more_s"]) if slow else 0.0)
        address_s = running_s + options.endpoint_s
        closed = self.faults.take("running-but-port-closed")
        open_s = address_s + options.sshd_s + (float(closed["for_s"]) if closed else 0.0)
        locked = self.faults.take("auth-refused")
        unknown = self.faults.peek("status-unknown")
        return Life(
            running_s=None if self.faults.take("stuck-starting") else running_s,
            address_s=None if self.faults.take("no-address") else address_s,
            open_s=open_s,
            unlock_s=open_s + float(locked["for_s"]) if locked else 0.0,
            unknown_s=float(unknown["for_s"]) if unknown else 0.0,
        )

    async def _settle_one(self, instance: Instance) -> None:
        now = self.clock.now()
        if instance.deleting_at:
            slow = self.faults.peek("delete-slow")
            wait_s = float(slow["for_s"]) if slow else 0.2
            if now - instance.deleting_at >= timedelta(seconds=wait_s):
                await self._end(instance)
            return
        life, age_s = instance.life, instance.age_s(now)
        ready = life.open_s is not None and instance.running_s(now) >= 0
        if ready and age_s >= (life.open_s or 0.0) and not instance.opened:
            instance.opened = True
            await instance.box.open()
        if instance.opened and life.unlock_s and age_s >= life.unlock_s and not instance.unlocked:
            instance.unlocked = True
            instance.box.unlock()
        stale = self.faults.peek("list-stale-after-modify")
        if instance.modified_at and instance.shown:
            for_s = float(stale["for_s"]) if stale else 0.0
            if now - instance.modified_at >= timedelta(seconds=for_s):
                instance.shown = {}
        if instance.opened:
            await self._befall(instance)

    async def _befall(self, instance: Instance) -> None:
        """What happens to a living instance."""
        now = self.clock.now()
        since_s = instance.age_s(now) - (instance.life.open_s or 0.0)
        if self.faults.take("address-changes", since_s=since_s):
            instance.migrating_until = now + timedelta(seconds=0.5)
            await instance.box.move()
        lost = self.faults.take(LOST_KEYS, since_s=since_s)
        if lost or self.faults.take("container-restarts", since_s=since_s):
            await self._restart(instance, keys_lost=lost is not None)
        if self.faults.take("host-dies", since_s=since_s):
            await instance.box.kill()
        if self.faults.take("stopped", since_s=since_s):
            instance.status_word = "STOPPED"
            self.account.bill(instance.uuid, instance.mark, 0.0, now)
            await instance.box.kill()
        if self.faults.take("vanishes", since_s=since_s):
            await self._end(instance)

    async def _restart(self, instance: Instance, *, keys_lost: bool) -> None:
        """As the reference has it (§1.7.8): the disk is kept, whatever ran is gone."""
        if keys_lost:
            instance.box.lock()
        await instance.box.reboot(wipe=False, new_host_key=False)
        instance.restart = {
            "reason": "OOMKilled",
            "timestamp": iso(self.clock.now()),
            "message": "the container was restarted",
            "exitCode": 137,
        }

    async def _end(self, instance: Instance) -> None:
        self._instances.pop(instance.uuid, None)
        self.account.bill(instance.uuid, instance.mark, 0.0, self.clock.now())
        await instance.box.end()

    def _listed(self) -> list[Instance]:
        now = self.clock.now()
        hidden = self.faults.peek("list-empty-after-create")
        hidden_s = float(hidden["for_s"]) if hidden else 0.0
        return [each for each in self._instances.values() if each.age_s(now) >= hidden_s]

    def _find(self, call: Call) -> Instance | None:
        wanted = call.params["id"]
        for each in self._instances.values():
            if wanted in (each.uuid, str(each.index)):
                return each
        return None

    def _free_index(self) -> int:
        """The smallest that is free: an index is used again."""
        used = {each.index for each in self._instances.values()}
        return next(index for index in range(len(used) + 1) if index not in used)

    def _renumber(self) -> None:
        """All indices move on by one place."""
        living = list(self._instances.values())
        indices = [each.index for each in living]
        for each, index in zip(living, indices[1:] + indices[:1], strict=True):
            each.index = index


def by_fault(response: Response) -> Response:
    """An answer that the published document need not know."""
    response.by_fault = True  # type: ignore[attr-defined]
    return response


def _is_one_line(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("ssh-") and "\n" not in key


def _key_pair() -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "thunder", "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path.read_text(), path.with_suffix(".pub").read_text().strip()
