"""One vendor's HTTP API: every outcome of a request as an answer or as one of our errors, and the
account's rate kept. The key goes into a header and into nothing else."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx

from orchestrator.adapters.rate import PER_MINUTE, Kind, Rate
from orchestrator.adapters.replies import Reply, json_or_none, message_of, shorten
from orchestrator.errors import LostAnswer, ProviderError, Refused, Transient

TIMEOUT_S = 30.0
MAX_BYTES = 32 * 1024 * 1024
# An event stream may never end: reading stops at a pause, or when it was long enough.
PAUSE_S = 3.0
LISTEN_S = 10.0
# Nothing of the request was sent.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Denied(Exception):
    """A 4xx that only the adapter can read: what a 400 or a 404 means differs by request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class Api:
    """JSON over HTTPS with one account's key. Safe to use from several threads.

    `token` is asked at each request and raises Refused when there is no key. `timeout_s` is for
    each step of a request, and once more for the whole of a reply's body.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: Callable[[], str],
        user_agent: str,
        rate: Rate,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        # Our paths name their version, whatever was copied from a vendor's page.
        self.base_url = re.sub(r"(/v[0-9]+)?/*$", "", base_url.rstrip("/"))
        self._token = token
        self._rate = rate
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            timeout=timeout_s,
            transport=transport,
            # Both vendors' edges refuse a client that does not say who it is.
            headers={"User-Agent": user_agent, "Accept": "application/json"},
        )

    def get(
        self, path: str, params: Mapping[str, str | int] | None = None, *, urgent: bool = False
    ) -> Any:
        """Parsed JSON. Raises Denied, Transient, Refused."""
        return self._send("act" if urgent else "poll", "GET", path, params=params)

    def act(self, method: str, path: str, body: Any = None) -> Any:
        """A request that may be repeated. Raises Denied, Transient, Refused."""
        return self._send("act", method, path, body=body)

    def create(self, path: str, body: Any) -> Any:
        """A request that is sent once. Raises Denied and Refused (nothing was made), Transient
        (it was not sent), LostAnswer (who knows)."""
        return self._send("create", "POST", path, body=body)

    def lines(self, path: str, *, limit_bytes: int, **params: str | int) -> list[str]:
        """The lines of an event stream that come at once: it may never end, so reading stops at
        the first pause, at `limit_bytes`, and after 10 s. Raises Denied, Transient, Refused."""
        heard = bytearray()
        request = self._request("poll", "GET", path, params=params, stream=True)
        with self._told("poll"), suppress(httpx.ReadTimeout), request as answer:
            if not answer.is_success:
                self._read("poll", self._whole(answer))
            self._rate.learn(answer.headers)
            until = self._rate.clock.monotonic() + LISTEN_S
            for part in answer.iter_bytes():
                heard += part
                if len(heard) >= limit_bytes or self._rate.clock.monotonic() >= until:
                    break
        return heard[:limit_bytes].decode(errors="replace").splitlines()

    def key_id(self) -> str:
        """A sign of the key in force that does not give it away. Raises Refused without one."""
        return hashlib.sha256(b"gpujob key " + self._token().encode()).hexdigest()[:12]

    def _send(
        self,
        kind: Kind,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
    ) -> Any:
        request = self._request(kind, method, path, params=params, body=body)
        with self._told(kind), request as answer:
            reply = self._whole(answer)
        return self._read(kind, reply)

    def _request(
        self,
        kind: Kind,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        stream: bool = False,
    ) -> AbstractContextManager[httpx.Response]:
        """A request that is counted, and sent when it is entered."""
        headers = self._headers()
        if stream:
            headers["Accept"] = "text/event-stream"
        pause_s = min(PAUSE_S, self._timeout_s) if stream else self._timeout_s
        self._rate.take(kind)
        return self._client.stream(
            method,
            self.base_url + path,
            params=dict(params or {}),
            json=body,
            headers=headers,
            timeout=httpx.Timeout(self._timeout_s, read=pause_s),
        )

    @contextmanager
    def _told(self, kind: Kind) -> Iterator[None]:
        """What goes wrong on the way, as one of our errors."""
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Refused(
                f"{self._where()} is no address of an API: {_words(error)}",
                hint="gpujob doctor",
                provider_wide=True,
            ) from None
        except _UNSENT as error:
            raise Transient(f"{self._where()} cannot be reached: {_words(error)}") from None
        except httpx.HTTPError as error:
            raise _unsure(kind, f"{self._where()} did not answer: {_words(error)}") from None

    def _whole(self, answer: httpx.Response) -> Reply:
        """All of a body, unless it has no end."""
        body = bytearray()
        until = self._rate.clock.monotonic() + self._timeout_s
        for part in answer.iter_bytes():
            body += part
            if len(body) > MAX_BYTES or self._rate.clock.monotonic() > until:
                raise httpx.ReadTimeout("the reply has no end")
        return Reply(answer.status_code, answer.headers, bytes(body))

    def _read(self, kind: Kind, reply: Reply) -> Any:
        retry_s = self._rate.learn(reply.headers)
        if reply.ok:
            return self._parsed(kind, reply)
        text = self._said(reply)
        if reply.status == 429:
            when = f", again in {retry_s:.0f} s" if retry_s else ""
            raise Transient(f"{self._where()} asks for patience{when}: {text}", retry_s=retry_s)
        if reply.status >= 500 or reply.status == 408:
            raise _unsure(kind, f"{self._where()} failed ({reply.status}): {text}")
        raise self._account_trouble(reply, text) or Denied(reply.status, text)

    def _account_trouble(self, reply: Reply, text: str) -> Refused | None:
        """What is about the account: nothing else will be rented from it either."""
        if reply.status == 401:
            return Refused(
                f"{self._where()} did not accept the key: {text}",
                hint="gpujob doctor",
                provider_wide=True,
            )
        if reply.status == 402:
            return Refused(
                f"{self._where()}: the account cannot pay: {text}",
                hint="add credit in the provider's console, then launch again",
                provider_wide=True,
            )
        if reply.status == 403 and json_or_none(reply) is None:
            return Refused(
                f"{self._where()}: its edge blocked the request (403): {text}",
                hint="gpujob doctor",
                provider_wide=True,
            )
        return None

    def _parsed(self, kind: Kind, reply: Reply) -> Any:
        if not reply.body:
            return None
        try:
            return reply.json()
        except ValueError:
            # A create may answer with a private key: what was cut is not shown.
            what = f"{len(reply.body)} bytes" if kind == "create" else self._said(reply)
            where = self._where()
            raise _unsure(
                kind, f"{where} answered with something that is no JSON: {what}"
            ) from None

    def _said(self, reply: Reply) -> str:
        """An error's text, which may repeat what was sent: the key is not shown."""
        return message_of(replace(reply, body=reply.body.replace(self._token().encode(), b"***")))

    def _headers(self) -> dict[str, str]:
        token = self._token()
        if not re.fullmatch(r"[!-~]+", token):
            # Sent on, it would be shown by whoever refuses it.
            raise Refused(
                f"the key for {self._where()} holds a blank or a letter that no key has",
                hint="gpujob doctor",
                provider_wide=True,
            )
        return {"Authorization": f"Bearer {token}"}

    def _where(self) -> str:
        return re.sub(r"^https?://([^@/]*@)?", "", self.base_url)


def _unsure(kind: Kind, message: str) -> ProviderError:
    """The request was sent: a create may have rented, anything else may be repeated."""
    return LostAnswer(message) if kind == "create" else Transient(message)


def _words(error: Exception) -> str:
    return shorten(str(error)) or type(error).__name__


__all__ = ["PER_MINUTE", "TIMEOUT_S", "Api", "Denied", "Rate"]
