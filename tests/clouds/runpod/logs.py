"""A pod's logs as server-sent events: what was said, then, for as long as one listens, what is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from starlette.responses import Response, StreamingResponse

from clouds.clock import iso, parse_iso
from clouds.cloud import Call
from clouds.runpod.pods import Line, Pod
from clouds.runpod.replies import Refusal

LOOK_S = 0.1
ALIVE_LOOKS = 100  # looks between two comments that keep the connection
HEADERS = {"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"}


def follow(call: Call, pod: Pod, skew_s: float) -> Response:
    """The stream stays open, as RunPod's does: it is the client who has heard enough."""
    source = call.query.get("source")
    if source not in (None, "container", "system"):
        raise Refusal(422, "Request validation failed.", ["source: unknown"])
    first = _first(call, pod, source)
    stream = _events(pod, source, first, timedelta(seconds=skew_s))
    return StreamingResponse(stream, media_type="text/event-stream", headers=HEADERS)


async def _events(pod: Pod, source: str | None, first: int, skew: timedelta) -> AsyncIterator[str]:
    told, looks = first, 0
    while pod.ended_at is None:
        for number, line in enumerate(pod.log[told:], told + 1):
            if source in (None, line.source):
                yield _event(number, line, skew)
        told = len(pod.log)
        await asyncio.sleep(LOOK_S)
        looks += 1
        if looks % ALIVE_LOOKS == 0:
            yield ": keep-alive\n\n"


def _event(number: int, line: Line, skew: timedelta) -> str:
    at = iso(line.at + skew)
    data = json.dumps({"ts": at, "source": line.source, "line": line.text})
    return f"id: {at}/{number:012d}\ndata: {data}\n\n"


def _first(call: Call, pod: Pod, source: str | None) -> int:
    """The index in the log from where to tell: a cursor comes before `since`, that before tail."""
    since = call.headers.get("last-event-id") or call.query.get("since")
    if since is not None:
        at = _instant(since.split("/")[0])
        later = (n for n, line in enumerate(pod.log) if line.at.replace(microsecond=0) >= at)
        return next(later, len(pod.log))
    tail = call.query.get("tail", "100")
    if not tail.isdigit() or int(tail) > 5000:
        raise Refusal(422, "Request validation failed.", ["tail: must be within 0..5000"])
    shown = [n for n, line in enumerate(pod.log) if source in (None, line.source)]
    kept = shown[-int(tail) :] if int(tail) else []
    return kept[0] if kept else len(pod.log)


def _instant(text: str) -> datetime:
    try:
        return parse_iso(text)
    except ValueError as error:
        raise Refusal(422, "Request validation failed.", ["since: no RFC 3339 time"]) from error
