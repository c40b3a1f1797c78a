"""RunPod: the edge, the key, the rate limit, and who answers what."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from clouds.account import Window
from clouds.cloud import Call, Cloud, Handler, Options, Routes
from clouds.faults import Params
from clouds.runpod.billing import pod_billing
from clouds.runpod.catalog_routes import Catalog
from clouds.runpod.desk import Desk
from clouds.runpod.faults import TABLE
from clouds.runpod.fleet import Fleet
from clouds.runpod.orders import Orders
from clouds.runpod.replies import (
    Refusal,
    bad_gateway,
    by_fault,
    firewall,
    problem,
    too_many_html,
)
from clouds.runpod.stores import Stores
from clouds.schema import Schema
from clouds.serving import CutShort

PER_MINUTE, PER_HOUR, PER_DAY = 60, 3000, 50000
GONE = "this API was retired; use https://api.runpod.io/v2"
SPEND_LIMIT_USD = 80.0
BALANCE = re.compile(r"\{\s*myself\s*\{([\w\s,]*)\}\s*\}\s*$")


def cloud(options: Options) -> RunPod:
    return RunPod(options)


class RunPod(Cloud):
    name = "runpod"

    def __init__(self, options: Options) -> None:
        schema = Schema("runpod-openapi-v2.json", amend=_amend)
        super().__init__(
            options,
            faults=TABLE,
            schema=schema,
            # RunPod tells a price an hour and no granularity.
            unit_s=0.001,
            windows=_windows(options.requests_per_minute or PER_MINUTE),
        )
        self.stores = Stores()
        self.fleet = Fleet(self.clock, self.account, self.faults, self.boxes, options.boot_s)
        orders = Orders(
            options,
            self.clock,
            self.faults,
            self.stores,
            self.fleet.taken,
            lambda: self.account.balance_usd,
        )
        self._desk = Desk(self.fleet, orders)
        self._catalog = Catalog(self.faults, self.fleet.taken)
        self._told: tuple[Window, ...] = self.account.windows

    def routes(self) -> Routes:
        vendor: dict[tuple[str, str], Handler] = {
            **self._desk.routes(),
            **self._catalog.routes(),
            **self.stores.routes(),
            ("GET", "/v2/billing/pods"): self.billing,
            ("GET", "/v2/openapi.json"): self.openapi,
            ("POST", "/graphql"): self.graphql,
        }
        for method in ("GET", "POST", "PATCH", "DELETE"):
            vendor[method, "/v1/{rest:path}"] = self.gone
        return {place: self._answered(handler) for place, handler in vendor.items()}

    async def settle(self) -> None:
        await self.fleet.settle()

    def instances(self) -> list[dict[str, Any]]:
        now = self.clock.now()
        return [
            {
                "id": pod.id,
                "mark": pod.name,
                "status": pod.status(now),
                "usd_per_hour": pod.cost_usd(now),
                "created_at": pod.created_at.isoformat(),
                "region": pod.center,
                "gpu": list(pod.gpu) if pod.gpu else None,
                "pid": pod.box.pid if pod.box else None,
                "folder": str(pod.box.folder) if pod.box else None,
                "home": str(pod.box.home) if pod.box else None,
                "port": pod.box.port if pod.box else None,
                "host_key": pod.box.host_key_pub if pod.box else None,
                "pod_key": pod.key,
            }
            for pod in self.fleet.living()
        ]

    async def end(self, instance: str) -> bool:
        pod = self.fleet.pods.get(instance)
        if pod is None or pod.ended_at is not None:
            return False
        self.fleet.end(pod)
        return True

    async def guard(self, call: Call) -> Response | None:
        """The edge, then the key, then the rate: faults of each come with it."""
        agent = call.headers.get("user-agent", "")
        if not agent or agent.startswith("Python-urllib") or self._take("forbidden-1010", call):
            return firewall()
        if self._take("html-502", call):
            return bad_gateway()
        if self.who(call) in ("nobody", "stranger") or self._take("unauthorized", call):
            bare = "authorization" not in call.headers
            return problem(401, "missing bearer token" if bare else "invalid bearer token")
        if (refused := self._limit(call)) is not None:
            return refused
        if not self._may(call):
            return problem(403, "this key does not grant access to this action")
        if self._take("internal-500", call):
            return by_fault(problem(500, "internal server error"))
        return None

    def who(self, call: Call) -> str:
        kind, _, key = call.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not key:
            return "nobody"
        if key == self.account.key:
            return "account"
        found = (pod for pod in self.fleet.living() if pod.key == key)
        pod = next(found, None)
        return f"pod:{pod.id}" if pod else "stranger"

    def problem(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        return problem(status, detail, headers=headers)

    def finish(self, call: Call, response: Response) -> None:
        """Every reply to a known key tells what is left of each window."""
        super().finish(call, response)
        if self.who(call) not in ("nobody", "stranger"):
            left = (f'"{w.name}";r={w.left};t={w.reset_s}' for w in self._told)
            policy = (f'"{w.name}";q={w.quota};w={w.length_s}' for w in self._told)
            response.headers["RateLimit"] = ", ".join(left)
            response.headers["RateLimit-Policy"] = ", ".join(policy)

    async def close(self) -> None:
        await self.fleet.close()
        await super().close()

    async def billing(self, call: Call) -> Response:
        return JSONResponse(pod_billing(call, self.account, self.clock.now()))

    async def openapi(self, call: Call) -> Response:
        if not self.schema.document:
            raise Refusal(404, "the document is not on this machine")
        return JSONResponse(self.schema.document)

    async def graphql(self, call: Call) -> Response:
        """Retired but for the one thing that v2 cannot tell: the balance."""
        query = call.body.get("query", "") if isinstance(call.body, dict) else ""
        asked = BALANCE.search(query)
        values = {
            "clientBalance": round(self.account.balance_usd, 6),
            "currentSpendPerHr": self.account.spend_usd_per_hour,
            "spendLimit": SPEND_LIMIT_USD,
            "id": "user_emulated",
            "email": "person@example.com",
        }
        names = re.findall(r"\w+", asked.group(1)) if asked else []
        if not names:
            raise Refusal(410, GONE)
        if unknown := [name for name in names if name not in values]:
            message = f'Cannot query field "{unknown[0]}" on type "User".'
            return JSONResponse({"errors": [{"message": message}]}, 400)
        return JSONResponse({"data": {"myself": {name: values[name] for name in names}}})

    async def gone(self, call: Call) -> Response:
        raise Refusal(410, GONE)

    def _answered(self, handler: Handler) -> Handler:
        """A handler with the faults that are any answer's."""

        async def answered(call: Call) -> Response:
            try:
                response = await handler(call)
            except Refusal as refusal:
                response = refusal.response()
            if slow := self._take("slow-reply", call):
                await asyncio.sleep(float(slow["delay_s"]))
            if self._take("answer-lost", call):
                return by_fault(CutShort(status_code=response.status_code))
            return bad_gateway() if self._take("done-then-502", call) else response

        return answered

    def _limit(self, call: Call) -> Response | None:
        if self._take("html-429", call):
            return too_many_html()
        if used_up := self._take("rate-limited", call):
            self.account.exhaust(str(used_up["window"]))
        self._told, full = self.account.ask()
        if full is None:
            return None
        detail = f"rate limit exceeded for the {full.name} window"
        return problem(429, detail, headers={"Retry-After": str(full.reset_s)})

    def _may(self, call: Call) -> bool:
        """A pod's own key may stop its own pod, and nothing else."""
        who = self.who(call)
        if who == "account":
            return True
        pod = who.removeprefix("pod:")
        mine = call.method == "POST" and call.path == f"/v2/pods/{pod}/action"
        stops = isinstance(call.body, dict) and call.body.get("action") == "stop"
        return mine and stops and not self.faults.take("pod-key-403", instance=pod)

    def _take(self, name: str, call: Call) -> Params | None:
        return self.faults.take(name, method=call.method, path=call.path)


def _windows(per_minute: int) -> tuple[Window, ...]:
    return (
        Window("minute", per_minute, 60),
        Window("hour", max(PER_HOUR, per_minute), 3600),
        Window("day", max(PER_DAY, per_minute), 86400),
    )


def _amend(document: dict[str, Any]) -> None:
    """What RunPod accepts since the saved document (§1.1)."""
    schemas = document["components"]["schemas"]
    words = {"type": "array", "items": {"type": "string"}}
    schemas["ContainerConfig"]["allOf"][1]["properties"].update(entrypoint=words, cmd=words)
    whole = {"type": "integer", "minimum": 1}
    gpu = schemas["CreateGpuConfig"]["allOf"][1]["properties"]
    gpu.update(minRamPerGpu=whole, minVcpuCountPerGpu=whole)
