"""Answers in Thunder's shape, and what stands in front of Thunder says instead (§1.6)."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import HTMLResponse, JSONResponse, Response

SLUGS = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    429: "rate_limit_exceeded",
    500: "internal",
}
TOO_MANY = "Too many requests. Please try again later."
WENT_WRONG = "Something went wrong"


class Refusal(Exception):
    """A request that is answered with an error; `slug` is the usual one of its status unless
    given."""

    def __init__(self, status: int, message: str, slug: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.slug = slug

    def response(self) -> Response:
        return error(self.status, self.message, slug=self.slug)


def invalid(what: str) -> Refusal:
    """As the one that was seen live: "validation: invalid vCPU count 4; valid options: [6 8]"."""
    return Refusal(400, f"validation: {what}", "validation_error")


def error(
    status: int, message: str, *, slug: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    body = {"code": status, "error": slug or SLUGS.get(status, "error"), "message": message}
    return JSONResponse(body, status, dict(headers or {}))


def edge(status: int, words: str) -> Response:
    """The edge knows no JSON."""
    title = f"{status} {words}"
    page = f"<html><head><title>{title}</title></head><body>cloudflare</body></html>"
    return by_fault(HTMLResponse(page, status))


def by_fault(response: Response) -> Response:
    """Mark an answer that the published document need not know."""
    response.by_fault = True  # type: ignore[attr-defined]
    return response
