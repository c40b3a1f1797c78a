"""Connections are made while a checkpoint is being saved, and not for one that never comes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from kit.history import BOX, TRAINING, at, lost, run_of, sealed

from orchestrator.flows.ahead import LINGER, LONGEST, Ahead
from orchestrator.flows.box import endpoint_of

RUN = run_of(*TRAINING, sealed(10))
PLACE = endpoint_of(RUN.instances[0])
FREE: frozenset[str] = frozenset()
NOW = at(100)


def pulse(*names: Any) -> dict[str, Any]:
    return {BOX: {"pinning": list(names)}}


@pytest.mark.parametrize(
    ("heartbeats", "is_expected"),
    [
        pytest.param(pulse("checkpoint-20"), True, id="a save"),
        pytest.param(pulse("checkpoint-10", "checkpoint-20"), True, id="one after another"),
        pytest.param(pulse("checkpoint-10"), False, id="sealed before the pulse"),
        pytest.param(pulse(), False, id="nothing"),
        pytest.param({}, False, id="not heard"),
        pytest.param({BOX: None}, False, id="no pulse"),
        pytest.param({BOX: {"pinning": "checkpoint-20"}}, False, id="no list"),
        pytest.param(pulse(["checkpoint-20"], {}, None), False, id="no names"),
    ],
)
def test_a_save_under_way_is_expected(heartbeats: dict[str, Any], is_expected: bool) -> None:
    found = Ahead().expected(RUN, heartbeats, FREE, NOW)
    assert found == (PLACE if is_expected else None)


def test_not_while_another_is_on_its_way() -> None:
    busy = frozenset({f"fetch:{BOX}/checkpoint-10.1"})
    assert Ahead().expected(RUN, pulse("checkpoint-20"), busy, NOW) is None


def test_not_on_a_box_that_is_lost() -> None:
    run = run_of(*TRAINING, lost())
    assert Ahead().expected(run, pulse("checkpoint-20"), FREE, NOW) is None


def test_it_lasts_until_the_seal_had_its_time_to_be_told() -> None:
    ahead = Ahead()
    ahead.expected(RUN, pulse("checkpoint-20"), FREE, NOW)
    ahead.expected(RUN, pulse("checkpoint-20"), FREE, NOW + LINGER)
    assert ahead.over(NOW + LINGER) == []
    ahead.expected(RUN, pulse(), FREE, NOW + 2 * LINGER)
    assert ahead.over(NOW + 2 * LINGER) == [PLACE]
    assert ahead.over(NOW + 2 * LINGER) == [], "told once"
    assert ahead.close() == []


def test_what_is_never_sealed_is_not_waited_for_for_ever() -> None:
    ahead, now = Ahead(), NOW
    while now < NOW + LONGEST:
        assert ahead.expected(RUN, pulse("checkpoint-20"), FREE, now)
        now += timedelta(minutes=1)
    assert ahead.expected(RUN, pulse("checkpoint-20"), FREE, now) is None
    assert ahead.expected(RUN, pulse("checkpoint-20", "checkpoint-30"), FREE, now) == PLACE


def test_a_daemon_that_ends_leaves_none() -> None:
    ahead = Ahead()
    ahead.expected(RUN, pulse("checkpoint-20"), FREE, NOW)
    assert ahead.close() == [PLACE]
    assert ahead.close() == []
