"""The door behind the cloud: what a test arms, moves and looks at, and no client can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from clouds.cloud import Cloud


def control_routes(cloud: Cloud) -> list[Route]:
    """GET faults, bill, audit, instances, violations, clock, balance; POST faults, clock, balance;
    DELETE faults[/NAME], instances/ID."""
    return Control(cloud).routes()


class Control:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def routes(self) -> list[Route]:
        return [
            Route("/faults", self.faults, methods=["GET", "POST", "DELETE"]),
            Route("/faults/{name}", self.disarm, methods=["DELETE"]),
            Route("/clock", self.clock, methods=["GET", "POST"]),
            Route("/balance", self.balance, methods=["GET", "POST"]),
            Route("/bill", self.bill),
            Route("/audit", self.audit),
            Route("/instances", self.instances),
            Route("/instances/{id}", self.end, methods=["DELETE"]),
            Route("/violations", self.violations),
        ]

    async def faults(self, request: Request) -> Response:
        faults = self.cloud.faults
        if request.method == "DELETE":
            return JSONResponse({"disarmed": faults.disarm()})
        if request.method == "POST":
            wanted = await request.json()
            try:
                armed = faults.arm(wanted.pop("name", ""), wanted)
            except (ValueError, TypeError) as error:
                return _wrong(error)
            await self.cloud.settle()
            return JSONResponse(armed.to_json(), 201)
        return JSONResponse(faults.listing())

    async def disarm(self, request: Request) -> Response:
        return JSONResponse({"disarmed": self.cloud.faults.disarm(request.path_params["name"])})

    async def clock(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                self.cloud.clock.advance(float((await request.json())["advance_s"]))
            except (ValueError, TypeError, KeyError) as error:
                return _wrong(error)
            await self.cloud.settle()
        clock = self.cloud.clock
        return JSONResponse({"now": clock.now().isoformat(), "driven": clock.driven})

    async def balance(self, request: Request) -> Response:
        if request.method == "POST":
            self.cloud.account.set_balance(float((await request.json())["usd"]))
            await self.cloud.settle()
        return JSONResponse({"balance_usd": self.cloud.account.balance_usd})

    async def bill(self, request: Request) -> Response:
        await self.cloud.settle()
        return JSONResponse(self.cloud.account.statement())

    async def audit(self, request: Request) -> Response:
        return JSONResponse({"requests": [each.to_json() for each in self.cloud.account.audit]})

    async def instances(self, request: Request) -> Response:
        await self.cloud.settle()
        return JSONResponse({"instances": self.cloud.instances()})

    async def end(self, request: Request) -> Response:
        found = await self.cloud.end(request.path_params["id"])
        return JSONResponse({"ended": found}, 200 if found else 404)

    async def violations(self, request: Request) -> Response:
        return JSONResponse(self.cloud.schema.to_json())


def _wrong(error: Any) -> Response:
    return JSONResponse({"error": str(error)}, 422)
