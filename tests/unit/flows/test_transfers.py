"""What comes home next, when a transfer counts as moving, and what one bad seal may not do."""

from __future__ import annotations

from dataclasses import replace

from kit.history import (
    BOX,
    DIGEST,
    TRAINING,
    at,
    created,
    gone,
    intended,
    lost,
    mirrored,
    run_of,
    sealed,
)

from orchestrator.core.holdings import newest_source
from orchestrator.flows.transfers import Transfers, fetch_key

RUN = run_of(*TRAINING, sealed(10), sealed(20), sealed(60, final=True))
FREE: frozenset[str] = frozenset()


def test_the_final_weights_first_and_then_the_newest() -> None:
    transfers = Transfers()
    order = []
    for _ in range(3):
        seal = transfers.next(RUN, BOX, frozenset(order))
        assert seal
        order.append(fetch_key(seal))
        transfers.ended(fetch_key(seal))
    assert [key.rpartition("/")[2] for key in order] == [
        "final.1",
        "checkpoint-20.1",
        "checkpoint-10.1",
    ]


def test_one_at_a_time() -> None:
    transfers = Transfers()
    assert transfers.next(RUN, BOX, FREE)
    assert transfers.next(RUN, BOX, FREE) is None


def test_a_seal_that_waits_does_not_hold_up_the_others() -> None:
    transfers = Transfers()
    first = transfers.next(RUN, BOX, FREE)
    assert first
    key = fetch_key(first)
    transfers.ended(key)
    assert transfers.refused(key) == 1
    second = transfers.next(RUN, BOX, frozenset({key}))
    assert second and second.name == "checkpoint-20"
    assert transfers.refused(fetch_key(second)) == 1, "a failure counts for its own seal alone"
    assert transfers.refused(key, stored=True) == 1, "and for its own source"


def test_only_bytes_never_had_before_are_a_movement() -> None:
    transfers = Transfers()
    transfers.moved([(DIGEST[10], 0)], at(1))
    assert transfers.moving_at is None
    transfers.moved([(DIGEST[10], 100)], at(2))
    transfers.moved([(DIGEST[10], 0), (DIGEST[10], 100)], at(3))
    assert transfers.moving_at == at(2), "a transfer that begins again stands still"
    transfers.moved([(DIGEST[10], 101)], at(4))
    assert transfers.moving_at == at(4)


def test_what_is_here_is_acknowledged() -> None:
    run = run_of(*TRAINING, sealed(10), mirrored(10), sealed(20))
    transfers = Transfers()
    assert [seal.name for seal in transfers.to_acknowledge(run, BOX, FREE)] == ["checkpoint-10"]
    assert transfers.to_acknowledge(run, BOX, frozenset({"ack:"})) == ()


def test_what_a_lost_box_left_on_the_volume_comes_home_through_the_next() -> None:
    second = "demo-1-2"
    told = (*TRAINING, sealed(10), lost(), gone(), intended(second), created(second))
    on_volume = replace(run_of(*told), volume="vol-1")
    assert Transfers().next(run_of(*told), second, FREE) is None
    seal = Transfers().next(on_volume, second, FREE)
    assert seal and seal.name == "checkpoint-10"
    source = newest_source(on_volume, second)
    assert source and source.step == 10
    assert newest_source(run_of(*told), second) is None
