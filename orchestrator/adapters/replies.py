"""What a vendor's reply says. Nothing in it is believed before it looks like what it has to be: it
may be cut, HTML, of another version, or hostile."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.printable import printable

SHOWN = 300
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_BIG = 10**12


@dataclass(frozen=True)
class Reply:
    """A status and a whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """Raises ValueError for what is no JSON."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deep") from error


def json_or_none(reply: Reply) -> Any:
    try:
        return reply.json()
    except ValueError:
        return None


def message_of(reply: Reply) -> str:
    """What a vendor's error says: its JSON in one of the known shapes, else its text."""
    data = json_or_none(reply)
    if not isinstance(data, dict):
        return shorten(re.sub(r"<[^>]*>", " ", reply.text))
    for name in ("detail", "error", "message", "title"):
        said = data.get(name)
        if isinstance(said, str) and said:
            more = data.get("message") if name == "error" else None
            errors = data.get("errors")
            extra = [more] if isinstance(more, str) else []
            extra += [str(each) for each in errors] if isinstance(errors, list) else []
            return shorten(": ".join([said, *extra]))
    return shorten(reply.text)


def shorten(text: str) -> str:
    """One line that a terminal can show."""
    text = printable(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def time_of(value: Any) -> datetime:
    """A time of RFC 3339; the epoch when it is none."""
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def amount_of(value: Any) -> float:
    """A number that is 0 or more; not a number when nobody knows."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and 0 <= value < _BIG else math.nan


def host_of(value: Any) -> str | None:
    """An IP address or a DNS name: it goes into a command line."""
    if not isinstance(value, str) or len(value) > 253:
        return None
    try:
        # A scope names an interface of this machine, which no vendor knows.
        return None if "%" in value else str(ipaddress.ip_address(value))
    except ValueError:
        parts = value.split(".")
        named = all(_NAME.fullmatch(part) for part in parts) and not parts[-1].isdecimal()
        return value if named else None


def port_of(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
        value = int(value)
    known = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
    return value if known else None
