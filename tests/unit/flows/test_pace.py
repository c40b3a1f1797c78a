"""How fast checkpoints come, measured over what really came."""

from __future__ import annotations

from kit.history import BOX, DIGEST, TRAINING, at, run_of, sealed

from orchestrator.flows.pace import Pace
from orchestrator.flows.transfers import ASSUMED_BYTES_PER_S, LEAST_DRAIN_S, Transfers


def test_nothing_is_known_before_something_came() -> None:
    pace = Pace()
    pace.told("a", 0, at(0))
    assert pace.bytes_per_s is None
    pace.told("a", 100, at(1))
    assert pace.bytes_per_s is None, "one second is no measure"
    pace.told("a", 200, at(2))
    assert pace.bytes_per_s == 100


def test_what_was_here_already_did_not_come() -> None:
    pace = Pace()
    for second in range(6):
        pace.told("a", 10**9 + 10 * second, at(second))
    assert pace.bytes_per_s == 10


def test_a_link_that_slows_down_shows_within_its_minute() -> None:
    pace = Pace()
    for second in range(100):
        pace.told("a", 1000 * second, at(second))
    for second in range(100, 200):
        pace.told("a", 100_000 + (second - 100), at(second))
    assert pace.bytes_per_s is not None
    assert pace.bytes_per_s < 2


def test_bytes_that_trickle_show_although_they_are_seldom() -> None:
    pace = Pace()
    for hour in range(4):
        pace.told("a", 3600 * hour, at(3600 * hour))
    assert pace.bytes_per_s == 1


def test_a_transfer_that_begins_anew_keeps_the_rate_of_before() -> None:
    pace = Pace()
    pace.told("a", 0, at(0))
    pace.told("a", 1000, at(10))
    pace.told("a", 0, at(11))
    pace.told("b", 5000, at(12))
    assert pace.bytes_per_s == 100


def test_a_drain_is_expected_to_take_what_this_link_takes() -> None:
    run = run_of(*TRAINING, sealed(10), sealed(20))
    transfers = Transfers()
    assert transfers.expected_s(run) == LEAST_DRAIN_S + 2000 / ASSUMED_BYTES_PER_S
    seal = transfers.next(run, BOX, frozenset())
    assert seal and seal.digest == DIGEST[20]
    transfers.moved([(DIGEST[20], 0), ("an upload", 10**9)], at(0))
    transfers.moved([(DIGEST[20], 100), ("an upload", 2 * 10**9)], at(100))
    assert transfers.bytes_per_s == 1
    assert transfers.expected_s(run) == LEAST_DRAIN_S + 2000
    picture = transfers.picture()
    assert picture and (picture["received"], picture["bytes_per_s"]) == (100, 1)
