"""What a vendor says is believed when it looks like what it has to be."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.adapters.replies import amount_of, host_of, port_of, shorten, time_of

HOSTS = ("194.68.245.10", "a.b-c.example", "localhost", "2001:db8::1")
NO_HOSTS = (
    None,
    7,
    "",
    " 1.2.3.4",
    "1.2.3.4\n",
    "1.2.3",
    "1.2.3.999",
    "999.999.999.999",
    "-oProxyCommand=id",
    "a.-b",
    "a..b",
    "a.b.",
    "root@1.2.3.4",
    "a/b",
    "fe80::1%eth0",
    "a_b",
    "é.example",
    "x" * 64,
    ".".join(["x" * 60] * 5),
)


@pytest.mark.parametrize("text", HOSTS)
def test_a_host(text: str) -> None:
    assert host_of(text) == text


@pytest.mark.parametrize("value", NO_HOSTS)
def test_no_host(value: Any) -> None:
    assert host_of(value) is None


@pytest.mark.parametrize(
    ("value", "port"),
    [
        (22, 22),
        (65535, 65535),
        ("31897", 31897),
        (0, None),
        (65536, None),
        (-1, None),
        (True, None),
        (22.0, None),
        ("22 ", None),
        ("022222", None),
        ("٢٢", None),
        ("22;id", None),
        (None, None),
        ([22], None),
    ],
)
def test_ports(value: Any, port: int | None) -> None:
    assert port_of(value) == port


@pytest.mark.parametrize("value", [0, 0.0, 0.49, 17])
def test_an_amount(value: Any) -> None:
    assert amount_of(value) == value


@pytest.mark.parametrize(
    "value", [None, "0.4", True, -0.1, math.nan, math.inf, -math.inf, 10**400, [], {}]
)
def test_an_amount_that_nobody_knows(value: Any) -> None:
    assert math.isnan(amount_of(value))


@pytest.mark.parametrize(
    "text", ["2026-10-01T12:00:00Z", "2026-10-01T14:00:00+02:00", "2026-10-01T12:00:00"]
)
def test_a_time(text: str) -> None:
    assert time_of(text) == datetime(2026, 10, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, "", "soon", 7, [], {"at": 1}])
def test_a_time_that_is_none_is_long_ago(value: Any) -> None:
    assert time_of(value) == datetime(1970, 1, 1, tzinfo=UTC)


def test_what_is_shown_is_one_printable_line() -> None:
    told = shorten("a\x1b[2J\r\nb\u202e\x00" + "c" * 1000)
    assert told.isprintable() and len(told) <= 301 and told.startswith("a [2J b c")
