"""The one HTTP request that the agent ever sends: to its provider, to stop this box."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from remote.agent import VERSION
from remote.agent.spec import StopRequest

TIMEOUT_S = 15.0
SCHEMES = ("https://", "http://")


def ask_to_stop(request: StopRequest, token: str) -> int:
    """Send it and return the HTTP status, whatever it is; the answer's words are not read.

    Raises OSError, HTTPException or ValueError when no answer came. No redirection is followed:
    the token is for this one address."""
    if not request.url.startswith(SCHEMES):
        raise ValueError("not an address of an API")
    opener = build_opener(_NoRedirection)
    try:
        with opener.open(_prepared(request, token), timeout=TIMEOUT_S) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return int(error.code)


def _prepared(request: StopRequest, token: str) -> Request:
    body = json.dumps(request.body).encode() if request.body else None
    headers = {"Authorization": "Bearer %s" % token, "User-Agent": "gpujob-agent/%s" % VERSION}
    if body:
        headers["Content-Type"] = "application/json"
    return Request(request.url, body, headers, method=request.method)


class _NoRedirection(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
