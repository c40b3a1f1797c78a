"""Estimators, and the two looks at the loss, on curves whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from kit.watches import BEGAN, curve, exploding, falling, flat, rising

from orchestrator.core.health.falls import look
from orchestrator.core.health.series import (
    Point,
    drop,
    fluctuation,
    mean_of_last,
    median_step_s,
    points,
    slope,
    spacing,
    spikes,
    step_times,
    warm_up_end,
)
from orchestrator.core.signatures.samples import Sample

LINE: list[Point] = [(step, 2.0 - 0.01 * step) for step in range(1, 101)]


def test_a_drop_is_between_the_means_of_the_ends() -> None:
    found = drop(LINE)
    assert found is not None
    assert found.first == pytest.approx(2 - 0.01 * 10.5)
    assert found.last == pytest.approx(2 - 0.01 * 90.5)
    assert found.percent == pytest.approx(100 * 0.8 / 1.895)
    assert (found.from_step, found.to_step) == (0, 100)


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ([], 0),
        ([(1, 1.0)], 0),
        (LINE[:39], 0),
        ([(5, 1.0), (500, 0.5)], 0),
        (LINE, 70),
        ([(step, -1.0) for step in range(1, 101)], 0),
    ],
    ids=["none", "one", "39 steps", "two far apart", "windows overlap", "below zero"],
)
def test_without_two_windows_there_is_no_drop(line: list[Point], start: int) -> None:
    assert drop(line, start=start) is None


def test_a_trainer_that_logs_seldom_has_wider_windows() -> None:
    line = [(step, 2.0 - 0.001 * step) for step in range(50, 501, 50)]
    found = drop(line)
    assert found is not None
    assert (found.first, found.last) == (pytest.approx(1.925), pytest.approx(1.525))


def test_the_error_of_a_drop_is_that_of_two_means() -> None:
    line = [(step, 1.0 + (0.1 if step % 2 else -0.1)) for step in range(1, 101)]
    found = drop(line)
    assert found is not None
    assert found.percent == pytest.approx(0)
    assert found.error_percent == pytest.approx(100 * math.sqrt(2 * 0.2**2 / 4 / 19), rel=1e-3)


def test_slope_spread_and_means() -> None:
    assert slope(LINE) == pytest.approx(-0.01)
    assert slope(LINE[:2]) is None
    assert fluctuation(LINE) == pytest.approx(0, abs=1e-9)
    wave = [(step, 1 + 0.5 * (-1) ** step) for step in range(100)]
    assert fluctuation(wave) == pytest.approx(0.5, rel=1e-2)
    assert mean_of_last(LINE, 10) == pytest.approx(2 - 0.01 * 95.5)
    assert mean_of_last([]) is None
    assert (spacing(LINE), spacing(LINE[:1])) == (1, 1)


def test_spikes_do_not_hide_one_another() -> None:
    line = [(step, 50.0 if step % 10 == 0 else 1.0) for step in range(1, 101)]
    assert [step for step, _ in spikes(line)] == list(range(10, 101, 10))
    assert spikes([(step, 1.0 + step * 1e-9) for step in range(100)]) == []


def test_points_are_finite_and_have_steps() -> None:
    samples = [Sample("x", 1, loss=math.nan), Sample("x", None, loss=1.0), Sample("x", 2, loss=3.0)]
    assert points(samples) == [(2, 3.0)]
    assert points([Sample("x", 4, values={"eval_loss": 2.0})], "eval_loss") == [(4, 2.0)]


def test_a_save_in_between_does_not_move_the_median_step() -> None:
    samples = list(curve(flat(), steps=50))
    late = [
        replace(each, at=each.at + timedelta(minutes=9)) if each.step and each.step > 20 else each
        for each in samples
        if each.at
    ]
    assert median_step_s(late) == 12
    assert median_step_s([]) is None


def test_whole_seconds_are_not_taken_for_a_pace() -> None:
    """0.4 s a step, stamped in whole seconds: most steps seem to take none."""
    samples = [
        Sample("x", step, at=BEGAN + timedelta(seconds=int(step * 0.4))) for step in range(1, 201)
    ]
    times = [value for _, value in step_times(samples)]
    assert all(0.36 <= value <= 0.44 for value in times)
    assert len(times) >= 6


def test_warm_up_ends_where_the_rate_stops_rising() -> None:
    assert warm_up_end(curve(flat(), steps=100, warm=44)) == 44
    assert warm_up_end(curve(flat(), steps=40, warm=44)) is None
    assert warm_up_end([Sample("x", 1, loss=1.0)]) is None


LOOK = {"start": 0, "percent": 10.0, "within": 100, "extend": 200}


@pytest.mark.parametrize(
    ("loss", "steps", "good", "last", "until"),
    [
        (falling(25), 99, False, False, 100),
        (falling(25), 100, True, True, None),
        (falling(8), 100, False, False, 200),
        (falling(8), 199, False, False, 200),
        (falling(8), 200, False, True, None),
        (lambda step: 1.2 - 0.001 * step, 100, False, False, 200),
        (lambda step: 1.2 - 0.001 * step, 200, True, True, None),
        (rising(), 200, False, True, None),
        (flat(), 5000, False, True, None),
        (exploding(), 200, False, True, None),
    ],
    ids=range(10),
)
def test_two_looks(loss: object, steps: int, good: bool, last: bool, until: int | None) -> None:
    seen = look(points(curve(loss, steps=steps)), **LOOK)  # type: ignore[arg-type]
    assert (seen.good, seen.last, seen.until) == (good, last, until)


def test_the_answer_does_not_depend_on_when_one_looks() -> None:
    """A dip between the looks is none of their business."""
    dips = lambda step: 0.5 if 120 <= step <= 180 else 1.2  # noqa: E731
    for steps in range(100, 200, 7):
        assert not look(points(curve(dips, steps=steps)), **LOOK).good  # type: ignore[arg-type]
    assert look(points(curve(dips, steps=400)), **LOOK).last  # type: ignore[arg-type]


def test_a_drop_within_the_noise_is_none() -> None:
    noisy = lambda step: (1.2 if step <= 50 else 1.05) + (0.9 if step % 2 else -0.9)  # noqa: E731
    seen = look(points(curve(noisy, steps=200)), **LOOK)  # type: ignore[arg-type]
    assert seen.drop is not None and seen.drop.percent > 10
    assert not seen.good
    assert "noise" in seen.words


def test_a_run_that_ended_early_is_judged_where_it_ended() -> None:
    short = points(curve(falling(25), steps=90))
    assert not look(short, **LOOK).good  # type: ignore[arg-type]
    assert look(short, **LOOK, ended=True).good  # type: ignore[arg-type]
    flat_one = look(points(curve(flat(), steps=90)), **LOOK, ended=True)  # type: ignore[arg-type]
    assert (flat_one.good, flat_one.last, flat_one.until) == (False, False, 100)


def test_without_an_extension_the_first_look_is_the_last() -> None:
    seen = look(points(curve(falling(8), steps=100)), start=0, percent=10, within=100)
    assert (seen.good, seen.last, seen.until) == (False, True, None)
