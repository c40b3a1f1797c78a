"""Answers in RunPod's shapes: problems, and what stands in front of RunPod says instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, Response

from clouds.cloud import Call

GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"
TOO_MANY = "<html><head><title>429 Too Many Requests</title></head><body>cloudflare</body></html>"


class Refusal(Exception):
    """A request that is answered with a problem."""

    def __init__(self, status: int, detail: str, errors: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors

    def response(self) -> Response:
        return problem(self.status, self.detail, self.errors)


def problem(
    status: int,
    detail: str,
    errors: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """RFC 9457, as RunPod writes it."""
    body: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def by_fault(response: Response) -> Response:
    """Mark a reply that is wrong on purpose."""
    response.by_fault = True  # type: ignore[attr-defined]
    return response


def bad_gateway() -> Response:
    return by_fault(HTMLResponse(GATEWAY, 502))


def too_many_html() -> Response:
    return by_fault(HTMLResponse(TOO_MANY, 429))


def firewall() -> Response:
    """The edge knows no vendor's shapes."""
    return by_fault(Response("error code: 1010", 403, media_type="text/plain"))


def checked(call: Call, errors_of: Callable[[Any], list[str]]) -> dict[str, Any]:
    """The body, or a Refusal with everything that is wrong with it."""
    if call.malformed or call.body is None:
        raise Refusal(422, "Request validation failed.", ["$: the body is no JSON"])
    if errors := errors_of(call.body):
        raise Refusal(422, "Request validation failed.", errors)
    return dict(call.body)
