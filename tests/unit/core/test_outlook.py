"""When a disk that fills up is told, and when it is well again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from kit.history import TRAINING, at, run_of, sealed

from orchestrator.core.keep import Keep
from orchestrator.core.outlook import Saves, growth_here, growth_seen, outlook, saves_of

NOW = at(0)
SAVES = Saves(size_bytes=100, every_steps=10, interval_s=60.0, left=10)


def test_what_the_last_saves_were_like() -> None:
    assert saves_of(run_of(*TRAINING)) is None
    assert saves_of(run_of(*TRAINING, sealed(10))) == Saves(1000, None, None, None)
    run = run_of(*TRAINING, *(sealed(step) for step in (10, 20, 30, 40)), every_s=30.0)
    assert saves_of(run) == Saves(1000, 10, 30.0, 2)
    assert saves_of(run_of(*TRAINING, sealed(60), sealed(60, final=True))).left is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("free", "growth", "needed"),
    [
        (200, 0.0, None),
        (199, 0.0, 200),
        (0, 0.0, 200),
        (1200, 100.0, None),
        (1199, 100.0, 1200),
        (1199, 50.0, None),
    ],
)
def test_two_more_have_to_fit_and_what_stays_of_all(
    free: int, growth: float, needed: int | None
) -> None:
    low = outlook(free, SAVES, growth, NOW)
    assert (low.needed_bytes if low else None) == needed
    assert low is None or low.free_bytes == free


def test_when_it_will_be_full() -> None:
    low = outlook(500, SAVES, 100.0, NOW)
    assert low and low.full_at == NOW + timedelta(seconds=5 * 60)
    unknown = outlook(100, Saves(100), 0.0, NOW)
    assert unknown and unknown.full_at is None


def test_after_the_last_save_no_disk_is_low() -> None:
    assert outlook(0, Saves(100, 10, 60.0, 0), 100.0, NOW) is None


def test_it_is_well_again_only_with_room_to_spare() -> None:
    assert outlook(210, SAVES, 0.0, NOW) is None
    assert outlook(210, SAVES, 0.0, NOW, was_low=True) is not None
    assert outlook(230, SAVES, 0.0, NOW, was_low=True) is None


@pytest.mark.parametrize(
    ("keep", "growth"),
    [(None, 100.0), (Keep(last=3), 0.0), (Keep(every=20), 50.0), (Keep(every=5), 100.0)],
    ids=str,
)
def test_what_a_save_adds_here_for_good(keep: Keep | None, growth: float) -> None:
    assert growth_here(SAVES, keep) == growth


@pytest.mark.parametrize(
    ("told", "growth"),
    [
        ([], 0.0),
        ([(1, 1000), (2, 900)], 0.0),
        ([(1, 1000), (2, 900), (4, 700)], 100.0),
        ([(1, 1000), (4, 1000)], 0.0),
        ([(1, 700), (4, 1000)], 0.0),
    ],
)
def test_what_a_save_takes_from_the_box_for_good(
    told: list[tuple[int, int]], growth: float
) -> None:
    assert growth_seen(told) == growth
