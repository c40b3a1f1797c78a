"""Thunder Compute: the edge, the token, the rate, and who answers what."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from clouds.account import windows
from clouds.cloud import Call, Cloud, Handler, Options, Routes
from clouds.faults import Params
from clouds.schema import Schema
from clouds.serving import CutShort
from clouds.thunder.desk import Desk
from clouds.thunder.faults import FAULTS
from clouds.thunder.fleet import Fleet
from clouds.thunder.instances import HOST, Instance
from clouds.thunder.market import PUBLIC, Market
from clouds.thunder.replies import TOO_MANY, WENT_WRONG, Refusal, by_fault, edge, error
from clouds.thunder.stores import Stores


def cloud(options: Options) -> Thunder:
    return Thunder(options)


class Thunder(Cloud):
    name = "thunder"

    def __init__(self, options: Options) -> None:
        super().__init__(
            options,
            faults=FAULTS,
            schema=Schema("thunder-openapi-v1.json", prefix="/v1", amend=_amend),
            unit_s=60.0,
            windows=windows(options.requests_per_minute),
        )
        self.fleet = Fleet(options, self.clock, self.account, self.faults, self.boxes)
        self._stores = Stores(options, self.fleet)
        self._desk = Desk(self.fleet, self._stores)
        self._market = Market(self.faults)

    def routes(self) -> Routes:
        vendor = {**self._desk.routes(), **self._stores.routes(), **self._market.routes()}
        return {place: self._answered(handler) for place, handler in vendor.items()}

    async def settle(self) -> None:
        await self.fleet.settle()

    def instances(self) -> list[dict[str, Any]]:
        return [self._truth(each) for each in self.fleet.living()]

    async def end(self, instance: str) -> bool:
        found = self.fleet.all.get(instance)
        if found is None:
            return False
        self.fleet.remove(found)
        return True

    async def guard(self, call: Call) -> Response | None:
        """The edge before the token: a client that does not say its name gets no further."""
        agent = call.headers.get("user-agent", "").lower()
        nameless = not agent or agent.startswith("python-urllib")
        if nameless or self._take("forbidden-no-user-agent", call):
            return edge(403, "Forbidden")
        if down := self._take("html-502", call):
            return edge(int(down["status"]), "Bad Gateway")
        if call.path not in PUBLIC and (refused := self._refused(call)) is not None:
            return refused
        return error(500, WENT_WRONG) if self._take("internal-500", call) else None

    def who(self, call: Call) -> str:
        right = call.headers.get("authorization") == f"Bearer {self.account.key}"
        return "account" if right else "nobody"

    def problem(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        return error(status, detail, headers=headers)

    async def close(self) -> None:
        await self.fleet.close()
        await super().close()
        shutil.rmtree(self.options.folder / "snapshots", ignore_errors=True)

    def _refused(self, call: Call) -> Response | None:
        """The same for no token and for a wrong one."""
        if self.who(call) == "nobody" or self.faults.take("token-revoked"):
            return error(401, "Unauthorized")
        _, full = self.account.ask()
        if limited := self._take("rate-limited", call):
            wait_s = limited["retry_after_s"]
            return error(429, TOO_MANY, headers={"Retry-After": str(wait_s)} if wait_s else None)
        return error(429, TOO_MANY) if full else None

    def _answered(self, handler: Handler) -> Handler:
        """A handler with the faults that are any answer's."""

        async def answered(call: Call) -> Response:
            try:
                response = await handler(call)
            except Refusal as refusal:
                response = refusal.response()
            if slow := self._take("slow-reply", call):
                await asyncio.sleep(float(slow["for_s"]))
            if self._take("answer-lost", call):
                return by_fault(CutShort(status_code=response.status_code))
            return edge(502, "Bad Gateway") if self._take("done-then-502", call) else response

        return answered

    def _take(self, name: str, call: Call) -> Params | None:
        return self.faults.take(name, method=call.method, path=call.path)

    def _truth(self, each: Instance) -> dict[str, Any]:
        now, box = self.clock.now(), each.box
        return {
            "id": each.uuid,
            "index": each.index,
            "mark": each.mark,
            "status": each.status(now),
            "usd_per_hour": each.usd_per_hour,
            "created_at": each.created_at.isoformat(),
            "gpu": [each.order.spec.gpu, each.order.spec.count],
            "keys": list(each.keys),
            "host": HOST,
            "port": box.port if box else None,
            "pid": box.pid if box else None,
            "folder": str(box.folder) if box else None,
            "home": str(box.home) if box else None,
            "host_key": each.host_key or None,
        }


def _amend(document: dict[str, Any]) -> None:
    """The published file is from before `mode` went, and generated: its errors, its nulls and its
    bodies are not all there."""
    schemas = document["components"]["schemas"]
    schemas["thundertypes.InstanceCreateRequest"]["required"].remove("mode")
    schemas["thundertypes.InstanceCreateResponse"]["required"].remove("key")
    schemas["thundertypes.InstanceListItem"]["properties"]["ip"]["type"] = ["string", "null"]
    told = {"$ref": "#/components/schemas/thundertypes.ErrorResponse"}
    for path in document["paths"].values():
        path.get("get", {}).pop("requestBody", None)
        path.get("delete", {}).pop("requestBody", None)
        for operation in path.values():
            operation["responses"]["default"] = {"content": {"application/json": {"schema": told}}}
            body = operation.get("requestBody", {})
            for media in body.get("content", {}).values():
                # "Any object, or exactly this one" fits nothing that is this one.
                schema = media["schema"].get("oneOf", [media["schema"]])[-1]
                nothing = [] if body.get("required") else [{"type": "null"}]
                media["schema"] = {"anyOf": [schema, *nothing]}
