"""Serves a cloud over HTTP: one dispatcher that reads, settles, guards, answers, checks and notes,
so that no vendor's handler can forget to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, compile_path
from starlette.types import Receive, Scope, Send

from clouds.account import Asked
from clouds.cloud import Call, Cloud, Handler
from clouds.control import control_routes

TICK_S = 0.1
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


class CutShort(Response):
    """An answer that breaks off: the client knows nothing of what was done."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"4096")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"', "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def application(cloud: Cloud) -> Starlette:
    """The vendor's API at /, and /_control."""
    table = [
        (method, compile_path(template)[0], template, handler)
        for (method, template), handler in cloud.routes().items()
    ]

    async def dispatch(request: Request) -> Response:
        await cloud.settle()
        call, handler, allowed = _find(table, await _read(request))
        response = await cloud.guard(call) or await _answer(cloud, call, handler, allowed)
        cloud.finish(call, response)
        _check(cloud, call, response)
        await cloud.settle()
        return response

    return Starlette(
        routes=[
            Mount("/_control", routes=control_routes(cloud)),
            Route("/{rest:path}", dispatch, methods=METHODS),
        ],
        lifespan=lambda app: _alive(cloud),
    )


async def _read(request: Request) -> Call:
    raw = await request.body()
    try:
        body, malformed = (json.loads(raw) if raw else None), False
    except ValueError:
        body, malformed = None, True
    return Call(
        method=request.method,
        path=request.url.path,
        query=dict(request.query_params),
        headers=dict(request.headers),
        raw=raw,
        body=body,
        malformed=malformed,
        url=str(request.base_url).rstrip("/"),
    )


def _find(table: list[Any], call: Call) -> tuple[Call, Handler | None, list[str]]:
    """The call with its template and parameters, its handler, and which methods its path has."""
    allowed, found, handler = [], call, None
    for method, regex, template, each in table:
        match = regex.match(call.path)
        if match is None:
            continue
        allowed.append(method)
        if method == call.method and handler is None:
            found = replace(call, template=template, params=match.groupdict())
            handler = each
    return found, handler, allowed


async def _answer(
    cloud: Cloud, call: Call, handler: Handler | None, allowed: list[str]
) -> Response:
    if handler is not None:
        return await handler(call)
    if allowed:
        return cloud.problem(405, "method not allowed", {"Allow": ", ".join(sorted(set(allowed)))})
    return cloud.problem(404, "resource not found")


def _check(cloud: Cloud, call: Call, response: Response) -> None:
    media = response.headers.get("content-type", "").split(";")[0]
    answer = _parsed(getattr(response, "body", b"")) if media.endswith("json") else None
    if call.template and not getattr(response, "by_fault", False):
        cloud.schema.check(
            call.method, call.template, call.body, response.status_code, media, answer
        )
    cloud.account.note(
        Asked(
            cloud.clock.now(),
            call.method,
            call.path,
            response.status_code,
            cloud.who(call),
            call.body,
        )
    )


def _parsed(body: bytes) -> Any:
    return json.loads(body) if body else None


@asynccontextmanager
async def _alive(cloud: Cloud) -> AsyncIterator[None]:
    ticking = asyncio.create_task(_tick(cloud))
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await cloud.close()


async def _tick(cloud: Cloud) -> None:
    """What happens to a box happens although nobody asks."""
    while True:
        await asyncio.sleep(TICK_S)
        if not cloud.clock.driven:
            await cloud.settle()
