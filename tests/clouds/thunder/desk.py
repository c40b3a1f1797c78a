"""/v1/instances: who answers what (§1.2)."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import JSONResponse, Response

from clouds.cloud import Call, Routes
from clouds.faults import Params
from clouds.serving import CutShort
from clouds.thunder import listing
from clouds.thunder.fleet import Fleet
from clouds.thunder.instances import Instance
from clouds.thunder.replies import WENT_WRONG, Refusal, by_fault, error
from clouds.thunder.sshkeys import checked_key, key_pair
from clouds.thunder.stores import Stores
from clouds.thunder.validate import (
    Order,
    body_of,
    to_change,
    to_order,
    to_ports,
    vcpus_refused,
)

ONE = "/v1/instances/{id}"


class Desk:
    def __init__(self, fleet: Fleet, stores: Stores) -> None:
        self._fleet = fleet
        self._faults = fleet.faults
        self._stores = stores

    def routes(self) -> Routes:
        return {
            ("GET", "/v1/instances/list"): self.list_all,
            ("POST", "/v1/instances/create"): self.create,
            ("POST", f"{ONE}/delete"): self.delete,
            ("POST", f"{ONE}/modify"): self.modify,
            ("POST", f"{ONE}/add_key"): self.add_key,
            ("PATCH", f"{ONE}/ports"): self.ports,
        }

    async def list_all(self, call: Call) -> Response:
        if self._faults.peek("index-moves"):
            self._fleet.shift()
        if self._faults.take("list-cut-short"):
            return by_fault(CutShort(status_code=200))
        return listing.answer(self._fleet, fresh=call.query.get("update_ips") == "true")

    async def create(self, call: Call) -> Response:
        grows = self._faults.peek("disk-grows") is not None
        order = to_order(call, self._stores.restorable(), grows=grows)
        self._refuse(order, call.body)
        if self._faults.take("create-500", spec=order.spec.key):
            return error(500, WENT_WRONG)
        made, private = await self._rent(order)
        answer: dict[str, Any] = {"identifier": made.index, "uuid": made.uuid}
        if private:
            answer["key"] = private
        return await self._created(answer, order.spec.key)

    async def delete(self, call: Call) -> Response:
        found = self._find(call)
        if found.deleting_at:
            raise _no_instance()
        if self._faults.take("delete-500", **found.facts):
            return error(500, WENT_WRONG)
        self._fleet.delete(found)
        return JSONResponse({"message": "Success"})

    async def modify(self, call: Call) -> Response:
        found = self._find(call)
        self._check_running(found)
        refused = self._faults.take("modify-refused", **found.facts)
        if refused:
            raise Refusal(400, "this instance cannot be modified", str(refused["error"]))
        order = to_change(call, found.order)
        self._fleet.modify(found, order)
        return JSONResponse(
            {**_names(found), "gpu_type": order.spec.gpu, "num_gpus": order.spec.count}
        )

    async def add_key(self, call: Call) -> Response:
        """Without a key in the body one is made, and its private half told."""
        found = self._find(call)
        sent = body_of(call, ("public_key",)).get("public_key")
        private, key = ("", checked_key(sent)) if sent else await asyncio.to_thread(key_pair)
        self._fleet.add_key(found, key)
        answer = {"success": True, "uuid": found.uuid, "message": "SSH key added"}
        return JSONResponse(answer | ({"key": private} if private else {}))

    async def ports(self, call: Call) -> Response:
        found = self._find(call)
        self._check_running(found)
        found.ports = to_ports(call, found.ports)
        return JSONResponse({**_names(found), "http_ports": found.ports})

    def _refuse(self, order: Order, body: Any) -> None:
        """What only Thunder can know."""
        spec = order.spec.key
        if "mode" in body and self._faults.peek("mode-refused"):
            raise Refusal(400, "unknown field: mode")
        if self._faults.take("vcpu-rejected", spec=spec):
            raise vcpus_refused(order.spec, order.vcpus)
        if unpaid := self._faults.take("payment-required", spec=spec):
            raise Refusal(int(unpaid["status"]), "Payment required: add a payment method")
        quota = self._faults.peek("quota-exceeded")
        if quota and len(self._fleet.living()) >= int(quota["most"]):
            raise Refusal(403, f"quota exceeded: at most {quota['most']} instances")
        if self._faults.take("no-capacity", spec=spec):
            raise Refusal(400, f"{spec} could not be placed")

    async def _rent(self, order: Order) -> tuple[Instance, str]:
        """The new instance, and the private key that the answer tells."""
        wanted = order.public_key is None
        needless = self._faults.peek("key-in-every-reply") is not None
        private, public = await asyncio.to_thread(key_pair) if wanted or needless else ("", "")
        keys = [each for each in (order.public_key, public) if each]
        if wanted and self._faults.take("key-missing-in-reply"):
            private = ""
        home = self._stores.home_of(order.template)
        return self._fleet.rent(order, keys, home), private

    async def _created(self, answer: dict[str, Any], spec: str) -> Response:
        """The instance exists and bills; what the client hears of it is another matter."""
        if self._take("create-500-but-created", spec):
            return error(500, WENT_WRONG)
        if hang := self._take("create-hangs-but-created", spec):
            await asyncio.sleep(float(hang["for_s"]))
        if self._take("create-cut-short", spec):
            return by_fault(CutShort(status_code=201))
        if self._faults.take("create-answers-200"):
            return by_fault(JSONResponse(answer, 200))
        return JSONResponse(answer, 201)

    def _take(self, name: str, spec: str) -> Params | None:
        return self._faults.take(name, spec=spec)

    def _find(self, call: Call) -> Instance:
        if self._faults.take("index-moves-before-use"):
            self._fleet.shift()
        found = self._fleet.find(call.params["id"])
        if found is None:
            raise _no_instance()
        return found

    def _check_running(self, instance: Instance) -> None:
        status = instance.status(self._fleet.clock.now())
        if status != "RUNNING":
            raise Refusal(409, f"the instance must be RUNNING; it is {status}")


def _no_instance() -> Refusal:
    return Refusal(404, "instance not found")


def _names(instance: Instance) -> dict[str, Any]:
    return {"identifier": str(instance.index), "instance_name": instance.uuid}
