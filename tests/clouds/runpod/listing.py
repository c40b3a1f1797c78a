"""Lists, page by page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from clouds.cloud import Call
from clouds.faults import Faults
from clouds.runpod.replies import Refusal

MOST = 1000


def paged(call: Call, faults: Faults, name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The page that the call asks for; without `limit`, `cursor` or the fault there is one page,
    as the saved document has it."""
    forced = faults.peek("list-pages")
    if not forced and "limit" not in call.query and "cursor" not in call.query:
        return {name: list(rows)}
    size = min(_limit(call), int(forced["page_size"]) if forced else MOST)
    ids = [row["id"] for row in rows]
    start = _after(name, call.query.get("cursor"), ids)
    page = list(rows[start : start + size])
    more = start + size < len(rows)
    cursor = _cursor(name, page[-1]["id"]) if more else None
    return {name: page, "pagination": {"nextCursor": cursor, "hasNextPage": more}}


def _limit(call: Call) -> int:
    text = call.query.get("limit", str(MOST))
    if not text.isdigit() or not 1 <= int(text) <= MOST:
        raise Refusal(422, "Request validation failed.", ["limit: must be within 1..1000"])
    return int(text)


def _cursor(name: str, last: str) -> str:
    return base64.urlsafe_b64encode(f"{name}:{last}".encode()).decode()


def _after(name: str, cursor: str | None, ids: Sequence[str]) -> int:
    """Where the page begins: a row that is gone since begins it where the list does."""
    if cursor is None:
        return 0
    try:
        kind, _, last = base64.urlsafe_b64decode(cursor).decode().partition(":")
    except (binascii.Error, ValueError):
        kind, last = "", ""
    if kind != name:
        raise Refusal(422, "Request validation failed.", ["cursor: malformed"])
    return ids.index(last) + 1 if last in ids else 0
