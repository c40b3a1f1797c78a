"""Prices, costs and what may still bill, word for word."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from kit.history import BOX, FINISHED, T0, TRAINING, drain, drained, planned, run_of, terminating

from orchestrator.core.codec import to_json
from orchestrator.core.fold import fold_all
from orchestrator.core.marks import Marked
from orchestrator.core.offer import Offer
from orchestrator.core.run import Event, Run
from orchestrator.views.cost import cost_record, cost_text
from orchestrator.views.ending import ending_text
from orchestrator.views.gc import marked_table
from orchestrator.views.offers import offer_record, offers_table

HOUR = timedelta(hours=1)
NOW = T0 + 3 * HOUR

OFFERS = """\
PROVIDER  GPU        COUNT  VCPUS  RAM    REGION   CLOUD   STOCK    $/H    AGE
runpod    A40        2      -      -      EU-RO-1  secure  LOW      $0.80  now
thunder   A100-80GB  1      8      64 GB  -        -       UNKNOWN  $1.09  3h00m
local     cpu        1      2      8 GB   -        -       UNKNOWN  $0.00  -"""


def offers() -> list[Offer]:
    return [
        Offer("runpod", "x", "A40", 2, 0, 0, 20, 0.8, "EU-RO-1", "secure", "LOW", NOW),
        Offer("thunder", "t", "A100-80GB", 1, 8, 64, 20, 1.09, seen_at=T0),
        Offer("local", "cpu-1", "cpu", 1, 2, 8, 20, 0.0),
    ]


def test_offers() -> None:
    assert offers_table(offers(), NOW) == OFFERS


def test_offers_for_a_program_hold_all_that_is_known() -> None:
    told = [json.loads(json.dumps(to_json(offer_record(each, NOW)))) for each in offers()]
    assert [each["age_s"] for each in told] == [0, 10800, None]
    assert told[0]["seen_at"] == "2026-01-01T03:00:00Z"
    assert (told[0]["region"], told[0]["stock"], told[0]["usd_per_hour"]) == ("EU-RO-1", "LOW", 0.8)


def two_boxes() -> Run:
    """An hour on one box at $1, lost; an hour of search in which one create was refused; an hour
    on another at $2, on which two attempts ran."""
    told: list[tuple[float, str, dict[str, Any]]] = [
        (0, *planned(budget_usd=10.0, budget_hours=4)),
        (0, "instance.intended", _intent("demo-1-1", "x", 1.0)),
        (0.1, "instance.created", {"instance": "demo-1-1", "provider_id": "i1"}),
        (0.2, "attempt.intended", {"attempt": 1, "instance": "demo-1-1", "resume": None}),
        (0.9, "instance.lost", {"instance": "demo-1-1", "reason": "gone"}),
        (1, "instance.gone", {"instance": "demo-1-1"}),
        (1.5, "instance.intended", _intent("demo-1-2", "y", 1.0)),
        (1.5, "instance.refused", {"instance": "demo-1-2", "why": "no_capacity", "message": "-"}),
        (2, "instance.intended", _intent("demo-1-3", "z", 2.0)),
        (2, "instance.created", {"instance": "demo-1-3", "provider_id": "i3"}),
        (2.1, "attempt.intended", {"attempt": 2, "instance": "demo-1-3", "resume": None}),
        (2.5, "attempt.exited", {"attempt": 2, "rc": 1, "why": "crash", "message": ""}),
        (2.5, "attempt.intended", {"attempt": 3, "instance": "demo-1-3", "resume": None}),
    ]
    events = [
        Event("demo-1", seq, T0 + hours * HOUR, kind, 1, data)
        for seq, (hours, kind, data) in enumerate(told, start=1)
    ]
    return fold_all("demo-1", events)


def _intent(instance: str, offer: str, usd_per_hour: float) -> dict[str, Any]:
    return {
        "instance": instance,
        "provider": "cloud",
        "offer": offer,
        "region": "EU",
        "usd_per_hour": usd_per_hour,
        "mark": f"gpujob-0-{instance}",
    }


COST = """\
INSTANCE  PROVIDER  OFFER  REGION  FROM         TO             HOURS  COST
demo-1-1  cloud     x      EU      01-01 00:00  01-01 01:00    1.00   $1.00
demo-1-3  cloud     z      EU      01-01 02:00  still billing  1.00   $2.00

ATTEMPT  INSTANCE  COST
1        demo-1-1  $1.00
2        demo-1-3  $1.00
3        demo-1-3  $1.00

total   $3.00 for 2.00 instance hours
budget  30% of $10.00
budget  50% of 4 instance hours
tries   1 rented nothing; `gpujob events demo-1` says why
billing demo-1-3 (cloud, $2.00/h)"""


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_what_a_run_costs() -> None:
    assert cost_text(two_boxes(), NOW) == COST


def test_the_cost_for_a_program_adds_up() -> None:
    told = cost_record(two_boxes(), NOW)
    assert told["cost_usd"] == sum(each["cost_usd"] for each in told["instances"]) == 3
    assert told["cost_usd"] == sum(each["cost_usd"] for each in told["attempts"])
    assert told["still_billing"] == ["demo-1-3"]
    assert [each["to_at"] for each in told["instances"]] == [T0 + HOUR, None]


def test_a_run_that_rented_nothing_cost_nothing() -> None:
    assert cost_text(run_of(), NOW) == "total   $0.00 for 0.00 instance hours"


def test_the_end_says_what_still_bills_by_name_and_price() -> None:
    run = run_of(*TRAINING, drain(), drained(), terminating())
    assert ending_text(run, NOW).endswith(f"STILL BILLING      {BOX} (local, $1.00/h)")
    over = run_of(drain(), drained(), FINISHED)
    assert ending_text(over, NOW).endswith("still billing      nothing")


MARKS = """\
PROVIDER  ID   MARK                 STATE    AGE    $/H    WHOSE
cloud     i-1  gpujob-00000000-a-1  RUNNING  3h00m  $0.40  ours, and no live run's
cloud     i-2  gpujob-ffffffff-b-1  PENDING  0s     $0.00  another ledger's, left alone"""


def test_what_gc_shows() -> None:
    marked = [
        Marked("cloud", "i-1", "gpujob-00000000-a-1", "orphan", "RUNNING", T0, 0.4),
        Marked("cloud", "i-2", "gpujob-ffffffff-b-1", "foreign", "PENDING", NOW + HOUR, 0.0),
    ]
    assert marked_table(marked, NOW) == MARKS
