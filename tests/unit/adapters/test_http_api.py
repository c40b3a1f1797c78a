"""Every outcome of a request becomes the error that says what to do next, the account's rate is
kept, and the key is shown to nobody."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from kit.clock import ManualClock

from orchestrator.adapters.http import Api, Denied
from orchestrator.adapters.rate import Rate
from orchestrator.errors import LostAnswer, Refused, Transient

KEY = "rpa_SECRETSECRETSECRET"
Handler = Callable[[httpx.Request], httpx.Response]
PAGE = "<html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"
KINDS: dict[str, Callable[[Api], Any]] = {
    "poll": lambda api: api.get("/v2/pods"),
    "act": lambda api: api.act("DELETE", "/v2/pods/a"),
    "create": lambda api: api.create("/v2/pods", {"name": "a"}),
}


def api_of(
    handler: Handler,
    clock: ManualClock | None = None,
    *,
    key: str = KEY,
    url: str = "https://cloud.test/",
    **rate: int,
) -> Api:
    return Api(
        url,
        token=lambda: key,
        user_agent="gpujob/0",
        rate=Rate(clock or ManualClock(), **rate),
        transport=httpx.MockTransport(handler),
    )


def answering(status: int, body: Any = None, **headers: str) -> Handler:
    """Bytes and text as they are, anything else as JSON."""
    raw = body if isinstance(body, bytes | str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx.Response(status, content=raw, headers=named)


def failing(error: type[httpx.RequestError], said: str = "it broke") -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error(said, request=request)

    return handler


def caught(handler: Handler, kind: str) -> Exception:
    with pytest.raises(Exception) as error:
        KINDS[kind](api_of(handler))
    return error.value


# name: (handler, error of a poll and an act, error of a create)
OUTCOMES: dict[str, tuple[Handler, type[Exception], type[Exception]]] = {
    "html": (answering(200, PAGE), Transient, LostAnswer),
    "cut JSON": (answering(200, '{"pods": [{"id": "a'), Transient, LostAnswer),
    "no text": (answering(200, b"\xff\xfe\x00"), Transient, LostAnswer),
    "nested too deep": (answering(200, "[" * 200_000), Transient, LostAnswer),
    "401 JSON": (answering(401, {"detail": "missing bearer token"}), Refused, Refused),
    "401 HTML": (answering(401, PAGE), Refused, Refused),
    "402 JSON": (answering(402, {"detail": "no balance"}), Refused, Refused),
    "402 HTML": (answering(402, PAGE), Refused, Refused),
    "403 HTML": (answering(403, PAGE), Refused, Refused),
    "403 empty": (answering(403, b""), Refused, Refused),
    "403 JSON": (answering(403, {"detail": "not yours"}), Denied, Denied),
    "400": (answering(400, {"detail": "no"}), Denied, Denied),
    "404": (answering(404, {"detail": "resource not found"}), Denied, Denied),
    "404 HTML": (answering(404, PAGE), Denied, Denied),
    "409": (answering(409, {"error": "conflict"}), Denied, Denied),
    "422": (answering(422, {"detail": "bad", "errors": ["$: x"]}), Denied, Denied),
    "408": (answering(408, PAGE), Transient, LostAnswer),
    "429": (answering(429, {"detail": "slow down"}), Transient, Transient),
    "429 HTML": (answering(429, PAGE), Transient, Transient),
    "500": (answering(500, {"error": "internal"}), Transient, LostAnswer),
    "502 HTML": (answering(502, PAGE), Transient, LostAnswer),
    "503 empty": (answering(503, b""), Transient, LostAnswer),
    "524": (answering(524, PAGE), Transient, LostAnswer),
    "no connection": (failing(httpx.ConnectError), Transient, Transient),
    "no connection in time": (failing(httpx.ConnectTimeout), Transient, Transient),
    "read timeout": (failing(httpx.ReadTimeout), Transient, LostAnswer),
    "write timeout": (failing(httpx.WriteTimeout), Transient, LostAnswer),
    "read error": (failing(httpx.ReadError), Transient, LostAnswer),
    "closed early": (failing(httpx.RemoteProtocolError), Transient, LostAnswer),
    "undecodable": (failing(httpx.DecodingError), Transient, LostAnswer),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OUTCOMES)
def test_outcome(name: str, kind: str) -> None:
    handler, repeatable, create = OUTCOMES[name]
    error = caught(handler, kind)
    assert type(error) is (create if kind == "create" else repeatable)


@pytest.mark.parametrize("name", [each for each in OUTCOMES if each[:3] in ("401", "402", "403")])
def test_what_is_about_the_account_is_provider_wide(name: str) -> None:
    error = caught(OUTCOMES[name][0], "poll")
    assert isinstance(error, Denied) or (isinstance(error, Refused) and error.provider_wide)
    assert isinstance(error, Denied) or (error.hint and "cloud.test" in str(error))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("handler", "data"),
    [
        (answering(200, {"a": 1}), {"a": 1}),
        (answering(201, []), []),
        (answering(200, "null"), None),
        (answering(204, b""), None),
        (answering(200, b""), None),
    ],
    ids=["object", "list", "null", "no content", "empty"],
)
def test_answer(kind: str, handler: Handler, data: Any) -> None:
    assert KINDS[kind](api_of(handler)) == data


def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(307, headers={"location": "https://elsewhere.test/"})

    with pytest.raises((Denied, Refused, Transient, LostAnswer)):
        api_of(handler).create("/v2/pods", {})
    assert asked == ["https://cloud.test/v2/pods"]


def test_a_request_as_it_is_sent() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    api = api_of(handler)
    api.get("/v2/pods", {"count": 2, "cloud": "SECURE"})
    api.act("POST", "/v2/pods/a/action", {"action": "stop"})
    poll, act = seen
    assert str(poll.url) == "https://cloud.test/v2/pods?count=2&cloud=SECURE"
    assert poll.headers["user-agent"] == "gpujob/0"
    assert poll.headers["authorization"] == f"Bearer {KEY}"
    assert poll.content == b""
    assert (act.method, json.loads(act.content)) == ("POST", {"action": "stop"})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"title": "Bad", "status": 400, "detail": "why"}, "why"),
        ({"detail": "Failed.", "errors": ["$: 'bogus' not allowed"]}, "Failed.: $: 'bogus' not"),
        ({"error": "not enough free GPUs on the host machine"}, "not enough free GPUs"),
        ({"error": "validation_error", "message": "invalid vCPU"}, "validation_error: invalid v"),
        ({"message": "text"}, "text"),
        ({"title": "Bad Request"}, "Bad Request"),
        ({"detail": ["a"], "error": {"b": 1}, "message": "c"}, "c"),
        ({"detail": "x" * 10_000}, "…"),
        (["strange"], "strange"),
        ("<p>Who <b>are</b> you</p>", "Who are you"),
        ("a\x1b[2Jb\r\nc", "a [2Jb c"),
    ],
)
def test_what_the_vendor_said_is_told_in_one_short_line(body: Any, said: str) -> None:
    error = caught(answering(400, body), "poll")
    assert isinstance(error, Denied)
    assert error.status == 400
    assert said in error.text
    assert len(error.text) < 320 and error.text.isprintable()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OUTCOMES)
def test_the_key_is_in_no_message_and_no_repr(name: str, kind: str) -> None:
    api = api_of(OUTCOMES[name][0])
    with pytest.raises(Exception) as error:
        KINDS[kind](api)
    told = "".join(traceback.format_exception(error.value))
    shown = [told, repr(error.value), repr(vars(error.value)), repr(api), str(api)]
    assert not [text for text in shown if KEY in text]


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_key_that_the_vendor_echoes_is_told_no_further(status: int) -> None:
    error = caught(answering(status, {"detail": f"what is {KEY}?"}), "poll")
    assert KEY not in str(error) + repr(vars(error))


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} x", f"é{KEY}", ""])
def test_a_key_that_no_header_can_carry_is_neither_sent_nor_shown(key: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was sent")

    with pytest.raises(Refused) as error:
        api_of(handler, key=key).create("/v2/pods", {})
    assert error.value.provider_wide
    assert KEY not in "".join(traceback.format_exception(error.value))


def test_the_private_key_in_a_cut_answer_is_not_shown() -> None:
    cut = '{"uuid": "a", "key": "-----BEGIN OPENSSH PRIVATE KEY-----b3Bl'
    assert "b3Bl" not in str(caught(answering(201, cut), "create"))


@pytest.mark.parametrize("url", ["https://cloud.test:8443/v1", "https://u:pw@cloud.test:8443/v2/"])
def test_an_address_that_was_copied_with_its_version(url: str) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(500)

    with pytest.raises(Transient) as error:
        api_of(handler, url=url).get("/v1/specs")
    assert asked == ["/v1/specs"]
    assert "cloud.test:8443" in str(error.value) and "pw" not in str(error.value)


@pytest.mark.parametrize("url", ["cloud.test", "ftp://cloud.test", "https://:x"])
def test_what_is_no_address(url: str) -> None:
    api = Api(url, token=lambda: KEY, user_agent="gpujob/0", rate=Rate(ManualClock()))
    with pytest.raises(Refused) as error:
        api.create("/v2/pods", {})
    assert error.value.provider_wide


# Event streams


class Drip(httpx.SyncByteStream):
    """Chunks, then a pause that is longer than the reader waits."""

    def __init__(self, *chunks: bytes, then: type[Exception] = httpx.ReadTimeout) -> None:
        self._chunks, self._then = chunks, then
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        raise self._then("a pause")

    def close(self) -> None:
        self.closed = True


def test_lines_are_what_comes_before_the_first_pause() -> None:
    stream = Drip(b"id: 1\ndata: a", b"b\n\ndata: c\n")
    api = api_of(lambda request: httpx.Response(200, stream=stream))
    assert api.lines("/logs", limit_bytes=1000, tail=5)[:4] == ["id: 1", "data: ab", "", "data: c"]
    assert stream.closed


def test_lines_end_at_the_limit() -> None:
    stream = Drip(*[b"data: 0123456789\n"] * 1000, then=AssertionError)
    api = api_of(lambda request: httpx.Response(200, stream=stream))
    assert 0 < len(api.lines("/logs", limit_bytes=170, tail=5)) < 20
    assert stream.closed


class Endless(httpx.SyncByteStream):
    """A part each second, for ever."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(10_000):
            self._clock.advance(1.0)
            yield b": alive\n"
        raise AssertionError("nobody stopped")


def test_lines_of_a_stream_that_never_pauses() -> None:
    clock = ManualClock()
    api = api_of(lambda request: httpx.Response(200, stream=Endless(clock)), clock)
    assert 5 <= len(api.lines("/logs", limit_bytes=10**6, tail=5)) <= 30


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_without_an_end(kind: str) -> None:
    clock = ManualClock()
    api = api_of(lambda request: httpx.Response(200, stream=Endless(clock)), clock)
    with pytest.raises(LostAnswer if kind == "create" else Transient):
        KINDS[kind](api)


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (answering(404, {"detail": "no pod"}), Denied),
        (answering(401, PAGE), Refused),
        (answering(502, PAGE), Transient),
        (failing(httpx.ConnectError), Transient),
        (lambda _: httpx.Response(200, stream=Drip(b"a", then=httpx.ReadError)), Transient),
    ],
    ids=["404", "401", "502", "no connection", "breaks"],
)
def test_lines_that_cannot_be_read(handler: Handler, error: type[Exception]) -> None:
    with pytest.raises(error):
        api_of(handler).lines("/logs", limit_bytes=1000, tail=5)


# The rate


def count(rate: Rate, kind: Any) -> int:
    """How many of the kind may be sent now."""
    for sent in range(1000):
        try:
            rate.take(kind)
        except Transient:
            return sent
    raise AssertionError("no end to it")


def test_54_a_minute_of_which_polls_leave_ten() -> None:
    clock = ManualClock()
    rate = Rate(clock)
    assert count(rate, "poll") == 44
    rate.take("create")
    assert count(rate, "act") == 9
    assert count(rate, "create") == 0
    clock.advance(59.9)
    assert count(rate, "create") == 0
    clock.advance(0.2)
    assert count(rate, "poll") == 44


def test_creates_leave_room_to_see_what_they_made_boot() -> None:
    clock = ManualClock()
    rate = Rate(clock)
    assert count(rate, "create") == 21
    assert count(rate, "poll") == 23
    assert count(rate, "act") == 10
    clock.advance(60.0)
    assert count(rate, "create") == 21


def test_the_minute_runs_on_with_each_request() -> None:
    clock = ManualClock()
    rate = Rate(clock)
    for _ in range(44):
        rate.take("poll")
        clock.advance(1.0)
    clock.advance(15.5)
    assert count(rate, "poll") == 0
    clock.advance(1.0)
    assert count(rate, "poll") == 1


def test_who_comes_too_early_is_told_when_to_come_again() -> None:
    clock = ManualClock()
    rate = Rate(clock)
    count(rate, "poll")
    clock.advance(20.0)
    with pytest.raises(Transient) as error:
        rate.take("poll")
    assert error.value.retry_s == pytest.approx(40.0)
    assert "40 s" in str(error.value)
    clock.advance(error.value.retry_s or 0)
    rate.take("poll")


def test_a_request_that_has_to_wait_is_not_sent() -> None:
    sent: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.method)
        return httpx.Response(200, json={})

    api = api_of(handler, per_minute=12)
    for _ in range(20):
        try:
            api.get("/v2/pods")
        except Transient:
            break
    polls = len(sent)
    assert 0 < polls < 12
    api.get("/v2/pods", urgent=True)
    api.create("/v2/pods", {})
    assert len(sent) == polls + 2
    with pytest.raises(Transient):
        for _ in range(20):
            api.act("DELETE", "/v2/pods/a")
    assert len(sent) == 12


WINDOWS = '"minute";r={};t={}, "hour";r={};t={}, "day";r=49500;t=45012'


@pytest.mark.parametrize(
    ("windows", "wait_s"),
    [
        ((58, 12, 2800, 1812), 0),
        ((11, 12, 2800, 1812), 0),
        ((10, 12, 2800, 1812), 12),
        ((0, 12, 2800, 1812), 12),
        ((58, 12, 0, 90), 90),
        ((0, 12, 0, 90), 90),
        ((3, 12, 9, 90), 90),
        ((0, 90, 3, 12), 90),
    ],
)
def test_a_poll_waits_for_the_longest_window_that_is_used_up(
    windows: tuple[int, ...], wait_s: float
) -> None:
    clock = ManualClock()
    rate = Rate(clock)
    rate.learn(httpx.Headers({"RateLimit": WINDOWS.format(*windows)}))
    if wait_s:
        assert count(rate, "poll") == 0
        clock.advance(wait_s - 0.5)
        assert count(rate, "poll") == 0
        clock.advance(0.5)
    rate.take("poll")


def test_what_is_left_of_a_window_is_counted_down_by_us() -> None:
    rate = Rate(ManualClock())
    rate.learn({"ratelimit": WINDOWS.format(13, 12, 2800, 1812)})
    assert count(rate, "poll") == 3
    assert count(rate, "act") == 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "7", "ratelimit": WINDOWS.format(0, 12, 0, 90)}, 90),
        ({"retry_after": "7", "ratelimit": WINDOWS.format(0, 12, 5, 90)}, 12),
    ],
    ids=["alone", "with windows", "with one that is used up"],
)
def test_retry_after_is_kept_for_every_kind(
    kind: str, headers: dict[str, str], wait_s: float
) -> None:
    clock = ManualClock()
    answers = [answering(429, {"detail": "slow"}, **headers), answering(200, {})]
    api = api_of(lambda request: answers.pop(0)(request), clock)
    with pytest.raises(Transient) as error:
        api.get("/v2/pods")
    assert error.value.retry_s == wait_s
    clock.advance(wait_s - 0.5)
    with pytest.raises(Transient):
        KINDS[kind](api)
    assert len(answers) == 1
    # A poll goes on waiting where fewer are left than its reserve.
    clock.advance(90.0)
    assert KINDS[kind](api) == {}


def test_retry_after_may_be_a_date() -> None:
    clock = ManualClock()
    rate = Rate(clock)
    assert rate.learn({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}) == 30.0
    assert count(rate, "create") == 0
    clock.advance(30.0)
    rate.take("create")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": ""},
        {"retry-after": "soon"},
        {"retry-after": "-5"},
        {"retry-after": "9" * 5000},
        {"ratelimit": "nonsense"},
        {"ratelimit": f'"minute";r={"9" * 5000};t=1'},
        {"ratelimit": '"minute";r=-1;t=-1'},
    ],
)
def test_headers_that_say_nothing_block_nothing(headers: dict[str, str]) -> None:
    rate = Rate(ManualClock())
    rate.learn(headers)
    assert count(rate, "poll") == 44


def test_no_vendor_can_keep_a_terminate_waiting_for_hours() -> None:
    clock = ManualClock()
    rate = Rate(clock)
    rate.learn({"retry-after": "99999999", "ratelimit": '"day";r=0;t=86000'})
    clock.advance(300.0)
    rate.take("act")
