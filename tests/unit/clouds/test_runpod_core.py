"""What the emulators are made of: bills, windows, faults, the vendor's schema, and a box with an
/etc of its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clouds.account import Account, windows
from clouds.clock import CloudClock
from clouds.faults import Fault, Faults
from clouds.schema import Schema

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> CloudClock:
    return CloudClock(START)


def account(clock: CloudClock, **changes: object) -> Account:
    return Account(clock, "key", 10.0, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit_s", "lasted_s", "usd"),
    [
        pytest.param(1.0, 3600.0, 3.6, id="an-hour"),
        pytest.param(1.0, 0.2, 0.001, id="a-begun-second"),
        pytest.param(60.0, 61.0, 0.12, id="a-begun-minute"),
        pytest.param(60.0, 120.0, 0.12, id="two-minutes"),
        pytest.param(60.0, 0.0, 0.0, id="nothing"),
    ],
)
def test_a_begun_unit_is_paid(
    clock: CloudClock, unit_s: float, lasted_s: float, usd: float
) -> None:
    mine = account(clock, unit_s=unit_s)
    mine.bill("i", "m", 3.6, clock.now())
    clock.advance(lasted_s)
    mine.bill("i", "m", 0.0, clock.now())
    clock.advance(1000)
    assert mine.spent_usd() == pytest.approx(usd)
    assert mine.balance_usd == pytest.approx(10 - usd)
    assert mine.spend_usd_per_hour == 0


def test_a_changed_price_begins_an_interval_and_the_same_does_not(clock: CloudClock) -> None:
    mine = account(clock)
    for usd in (1.0, 1.0, 2.0):
        mine.bill("i", "m", usd, clock.now())
        clock.advance(1800)
    rows = mine.statement()["intervals"]
    assert [(row["usd_per_hour"], row["usd"]) for row in rows] == [(1.0, 1.0), (2.0, 1.0)]
    assert [row["to"] is None for row in rows] == [False, True]


def test_a_window_refuses_and_begins_again(clock: CloudClock) -> None:
    mine = account(clock, windows=windows(2))
    assert [mine.ask()[1] is None for _ in range(3)] == [True, True, False]
    clock.advance(59)
    _, full = mine.ask()
    assert full and full.reset_s == 1
    clock.advance(1)
    told, full = mine.ask()
    assert full is None and told[0].left == 1
    mine.exhaust("minute")
    assert mine.ask()[1] is not None


def test_a_real_clock_is_not_moved() -> None:
    with pytest.raises(ValueError, match="real time"):
        CloudClock().advance(1)
    with pytest.raises(ValueError, match="forward"):
        CloudClock(START).advance(-1)


TABLE = (
    Fault("late", "§1", "acts late", {"instance": None, "after_s": 0.0}),
    Fault("bare", "", ""),
)


def test_a_fault_waits_for_its_instance_and_its_moment() -> None:
    faults = Faults(TABLE)
    faults.arm("late", {"instance": "a", "after_s": 5, "times": 2})
    assert not faults.take("late", instance="b", since_s=9)
    assert not faults.take("late", instance="a", since_s=4)
    once: set[int] = set()
    assert faults.take("late", instance="a", since_s=5, once=once)
    assert not faults.take("late", instance="a", since_s=6, once=once), "the same one, again"
    assert faults.peek("late", instance="a", since_s=5)
    assert faults.take("late", instance="a", since_s=5)
    assert not faults.take("late", instance="a", since_s=5), "twice is twice"


def test_a_fault_without_parameters_is_true_when_it_acts() -> None:
    faults = Faults(TABLE)
    faults.arm("bare", {"times": "always", "skip": 1})
    assert [bool(faults.take("bare")) for _ in range(3)] == [False, True, True]
    assert faults.disarm("bare") == 1
    assert not faults.take("bare")


def test_a_fault_that_nobody_declared_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Faults(TABLE).take("typo")


@pytest.fixture
def schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Schema:
    name = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}
    post = {"requestBody": {"content": content}, "responses": {"201": {"content": content}}}
    document = {
        "paths": {"/things/{id}": {"post": post}},
        "components": {"schemas": {"Thing": name}},
    }
    (tmp_path / "vendor.json").write_text(json.dumps(document))
    monkeypatch.setenv("GPUJOB_REFERENCE", str(tmp_path))
    return Schema("vendor.json", prefix="/v1")


GOOD = {"name": "x"}


@pytest.mark.parametrize(
    ("sent", "status", "media", "answer", "sides"),
    [
        pytest.param(GOOD, 201, "application/json", GOOD, [], id="right"),
        pytest.param({}, 201, "application/json", GOOD, ["request"], id="accepted-a-wrong-one"),
        pytest.param(GOOD, 201, "application/json", {"name": 1}, ["reply"], id="wrong-reply"),
        pytest.param(GOOD, 200, "application/json", GOOD, ["reply"], id="other-status"),
        pytest.param(GOOD, 201, "text/html", None, ["reply"], id="other-media"),
    ],
)
def test_the_schema_finds_what_is_wrong(
    schema: Schema, sent: object, status: int, media: str, answer: object, sides: list[str]
) -> None:
    schema.check("POST", "/v1/things/{name}", sent, status, media, answer)
    assert [each["side"] for each in schema.violations] == sides
    assert schema.checked == 1


def test_without_the_vendors_file_nothing_is_checked_and_that_is_said() -> None:
    schema = Schema("no-such-file.json")
    schema.check("GET", "/v2/pods", None, 200, "application/json", {})
    assert schema.violations == [] and schema.to_json()["note"].startswith("skipped")
