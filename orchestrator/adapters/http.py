"""One vendor's HTTP API: every outcome of a request as an answer or as one of our errors, and the
account's rate kept. The key goes into a header and into nothing else."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

import httpx

from orchestrator.errors import LostAnswer, ProviderError, Refused, Transient
from orchestrator.ports import Clock

TIMEOUT_S = 30.0
# RunPod's specification shows 60 a minute for an account; other programs ask too.
PER_MINUTE = 54
SHOWN = 300
MAX_BYTES = 32 * 1024 * 1024
# A poll can wait for its next turn; a create or a terminate is about money now.
Kind = Literal["poll", "act", "create"]


class Denied(Exception):
    """A 4xx that only the adapter can read: what a 400 or a 404 means differs by request."""

    def __init__(self, status: int, text: str, data: Any = None) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text
        self.data = data


class Rate:
    """Requests of the account in the running minute, by all that use it. It never sleeps: who
    comes too early is told when to come again. Polls leave a reserve for what is about money."""

    def __init__(self, clock: Clock, *, per_minute: int = PER_MINUTE, reserve: int = 10) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._reserve = reserve
        self._sent: deque[float] = deque()
        self._left: int | None = None
        self._resets_at = 0.0
        self._blocked_until = 0.0
        self._lock = threading.Lock()

    def take(self, kind: Kind) -> None:
        """Count one request. Raises Transient, and nothing was sent, when it has to wait."""
        with self._lock:
            now = self._clock.monotonic()
            while self._sent and now - self._sent[0] >= 60.0:
                self._sent.popleft()
            wait_s = max(self._blocked_until - now, self._wait_s(kind, now))
            if wait_s > 0:
                raise Transient(f"the account's rate limit is near; again in {wait_s:.0f} s")
            self._sent.append(now)
            if self._left is not None:
                self._left -= 1

    def learn(self, headers: Mapping[str, str]) -> float | None:
        """Take in what the vendor says of its windows; the seconds of a Retry-After."""
        with self._lock:
            now = self._clock.monotonic()
            windows = re.findall(r"r=(\d+);\s*t=(\d+)", headers.get("ratelimit", ""))
            if windows:
                left, resets_s = min((int(left), int(after)) for left, after in windows)
                self._left, self._resets_at = left, now + resets_s
            spent = [int(after) for left, after in windows if left == "0"]
            with suppress(ValueError):
                spent.append(int(headers.get("retry-after", "")))
            if "retry-after" in headers and spent:
                self._blocked_until = now + max(spent)
                return float(max(spent))
            return None

    def _wait_s(self, kind: Kind, now: float) -> float:
        keep = self._reserve if kind == "poll" else 0
        if self._left is not None and now < self._resets_at and self._left <= keep:
            return self._resets_at - now
        if len(self._sent) >= self._per_minute - keep:
            return 60.0 - (now - self._sent[0])
        return 0.0


class Api:
    """JSON over HTTPS with one account's key. Safe to use from several threads."""

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
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._rate = rate
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
        the first pause. Raises Denied, Transient, Refused."""
        return self._lines(path, params, limit_bytes)

    def _send(
        self,
        kind: Kind,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
    ) -> Any:
        headers = self._headers()
        self._rate.take(kind)
        try:
            answer = self._client.request(
                method, self.base_url + path, params=dict(params or {}), json=body, headers=headers
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Transient(f"{self._where()} cannot be reached: {_words(error)}") from None
        except httpx.HTTPError as error:
            raise self._unsure(kind, f"{self._where()} did not answer: {_words(error)}") from None
        return self._read(kind, answer)

    def _read(self, kind: Kind, answer: httpx.Response) -> Any:
        retry_s = self._rate.learn(answer.headers)
        if answer.is_success:
            return self._parsed(kind, answer)
        text = message_of(answer)
        if answer.status_code == 429:
            when = f", again in {retry_s:.0f} s" if retry_s else ""
            raise Transient(f"{self._where()} asks for patience{when}: {text}")
        if answer.status_code >= 500:
            raise self._unsure(kind, f"{self._where()} failed ({answer.status_code}): {text}")
        raise self._account_trouble(answer, text) or Denied(answer.status_code, text, _json(answer))

    def _account_trouble(self, answer: httpx.Response, text: str) -> Refused | None:
        """What is about the account: nothing else will be rented from it either."""
        if answer.status_code == 401:
            return Refused(
                f"{self._where()} did not accept the key: {text}",
                hint="gpujob doctor",
                provider_wide=True,
            )
        if answer.status_code == 402:
            return Refused(
                f"{self._where()}: the account cannot pay: {text}",
                hint="add credit in the provider's console, then launch again",
                provider_wide=True,
            )
        edge = answer.status_code == 403 and _json(answer) is None
        if edge:
            return Refused(
                f"{self._where()}: its edge blocked the request (403): {text}",
                hint="gpujob doctor",
                provider_wide=True,
            )
        return None

    def _parsed(self, kind: Kind, answer: httpx.Response) -> Any:
        if not answer.content:
            return None
        data = _json(answer)
        if data is None and answer.content.strip() != b"null":
            what = f"{self._where()} answered with something that is no JSON"
            raise self._unsure(kind, f"{what}: {_shorten(answer.text)}")
        return data

    def _lines(self, path: str, params: Mapping[str, str | int], limit_bytes: int) -> list[str]:
        headers = {**self._headers(), "Accept": "text/event-stream"}
        self._rate.take("poll")
        found: list[str] = []
        size = 0
        try:
            with self._client.stream(
                "GET",
                self.base_url + path,
                params=dict(params),
                headers=headers,
                timeout=httpx.Timeout(TIMEOUT_S, read=3.0),
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    self._read("poll", answer)
                self._rate.learn(answer.headers)
                for line in answer.iter_lines():
                    found.append(line)
                    size += len(line) + 1
                    if size >= limit_bytes:
                        break
        except httpx.ReadTimeout:
            return found
        except httpx.HTTPError as error:
            raise Transient(f"{self._where()} did not answer: {_words(error)}") from None
        return found

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}

    def _where(self) -> str:
        return re.sub(r"^https?://", "", self.base_url)

    @staticmethod
    def _unsure(kind: Kind, message: str) -> ProviderError:
        """The request was sent: a create may have rented, anything else may be repeated."""
        return LostAnswer(message) if kind == "create" else Transient(message)


def message_of(answer: httpx.Response) -> str:
    """What a vendor's error says: its JSON in one of the known shapes, else its text."""
    data = _json(answer)
    if not isinstance(data, dict):
        return _shorten(re.sub(r"<[^>]*>", " ", answer.text))
    for name in ("detail", "error", "message", "title"):
        said = data.get(name)
        if isinstance(said, str) and said:
            more = data.get("message") if name == "error" else None
            errors = data.get("errors")
            extra = [more] if isinstance(more, str) else []
            extra += [str(each) for each in errors] if isinstance(errors, list) else []
            return _shorten(": ".join([said, *extra]))
    return _shorten(answer.text)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _words(error: Exception) -> str:
    return _shorten(str(error)) or type(error).__name__
