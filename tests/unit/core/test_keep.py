"""Which published checkpoints may go, and which never may."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.history import (
    BOOTED,
    BOX,
    DIGEST,
    TRAINING,
    Told,
    acked,
    attempt,
    exited,
    gone,
    lost,
    mirrored,
    prepared,
    run_of,
    sealed,
    settled,
    started,
)

from orchestrator.core.holdings import missing_here, never_came, newest_source
from orchestrator.core.keep import Keep, prunable, ranked
from orchestrator.core.metrics import Metric
from orchestrator.core.run import Run

LOSS = Metric("eval_loss", "min")
ACCURACY = Metric("eval_accuracy", "max")


def here(step: int, **metrics: float) -> tuple[Told, ...]:
    kind, data = mirrored(step)
    return sealed(step), (kind, {**data, "metrics": metrics}), acked(step)


def pruned(step: int) -> Told:
    name = f"checkpoint-{step}"
    data = {"instance": BOX, "name": name, "generation": 1, "digest": DIGEST[step], "path": ""}
    return "checkpoint.pruned", data


def run_with(*steps: int) -> Run:
    return run_of(*TRAINING, *(told for step in steps for told in here(step)))


def going(run: Run, keep: Keep | None) -> list[int | None]:
    return [seal.step for seal in prunable(run, keep)]


@pytest.mark.parametrize(
    ("keep", "goes"),
    [
        (None, []),
        (Keep(last=1), [10, 20, 30, 40]),
        (Keep(last=3), [10, 20]),
        (Keep(last=9), []),
        (Keep(every=20), [10, 30]),
        (Keep(every=100), [10, 20, 30, 40]),
        (Keep(last=2, every=20), [10, 30]),
    ],
    ids=str,
)
def test_what_no_rule_keeps_may_go_oldest_first(keep: Keep | None, goes: list[int]) -> None:
    assert going(run_with(10, 20, 30, 40, 50), keep) == goes


VALUES = {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.0, 50: 4.0}


@pytest.mark.parametrize(
    ("keep", "goes"),
    [
        (Keep(best=LOSS), [10, 30, 40]),
        (Keep(best=LOSS, best_count=2), [10, 30]),
        (Keep(best=Metric("eval_loss", "max")), [10, 20, 30, 40]),
        (Keep(best=LOSS, last=2), [10, 30]),
    ],
    ids=str,
)
def test_the_best_stay_and_of_equals_the_earlier(keep: Keep, goes: list[int]) -> None:
    told = (each for step, value in VALUES.items() for each in here(step, eval_loss=value))
    assert going(run_of(*TRAINING, *told), keep) == goes


def test_as_long_as_nobody_told_the_metric_any_may_be_the_best() -> None:
    keep = Keep(best=ACCURACY, last=1)
    run = run_of(*TRAINING, *here(10, loss=1.0), *here(20), *here(30))
    assert going(run, keep) == []
    known = run_of(*TRAINING, *here(10), *here(20, eval_accuracy=0.5), *here(30))
    assert going(known, keep) == [10]


def test_ranked() -> None:
    run = run_of(*TRAINING, *here(10, eval_accuracy=0.1), *here(20), *here(30, eval_accuracy=0.9))
    assert [seal.step for seal in ranked(run, run.seals, ACCURACY)] == [30, 10]


NEVER: dict[str, tuple[tuple[Told, ...], Any]] = {
    "the final weights": (
        (*here(10), *here(20), sealed(60, final=True), mirrored(60, final=True)),
        "final",
    ),
    "what the box was not told of": ((sealed(10), mirrored(10), *here(20), *here(30)), 10),
    "what the attempt resumed from": (
        (*here(10), *here(20), exited(rc=1, why="crash"), settled(), attempt(2, resume=10),
         started(2), *here(30)),
        10,
    ),
    "the newest that a resume can start from": ((*here(10), *here(20)), 20),
    "what only came from here": ((*here(10), sealed(20)), 10),
}  # fmt: skip


@pytest.mark.parametrize(("told", "stays"), NEVER.values(), ids=NEVER)
def test_what_never_goes(told: tuple[Told, ...], stays: int | str) -> None:
    run = run_of(*TRAINING, *told)
    going_names = {seal.name for seal in prunable(run, Keep(every=1000))}
    assert (stays if isinstance(stays, str) else f"checkpoint-{stays}") not in going_names


def test_a_newest_that_cannot_be_used_leaves_the_one_before_it() -> None:
    run = replace(run_with(10, 20, 30), unusable=(DIGEST[30],))
    assert going(run, Keep(last=1)) == [10]


def test_what_is_due_in_s3_waits_for_it() -> None:
    run = replace(run_with(10, 20, 30), also="s3://b/p")
    assert going(run, Keep(last=1)) == []
    assert going(replace(run, pushed={DIGEST[10]: "s3://b/p/x"}), Keep(last=1)) == [10]


def test_a_box_that_is_gone_is_owed_nothing() -> None:
    told = (*TRAINING, sealed(10), mirrored(10), *here(20))
    assert going(run_of(*told), Keep(last=1)) == []
    assert going(run_of(*told, lost(), gone()), Keep(last=1)) == [10]


def test_one_of_unknown_step_stays() -> None:
    kind, data = sealed(10)
    run = run_of(*TRAINING, (kind, {**data, "step": None}), mirrored(10), acked(10), *here(20))
    assert going(run, Keep(last=1)) == []


def under(name: str, step: int | None, of: int) -> tuple[Told, ...]:
    """The tree of the checkpoint `of`, sealed and acknowledged once more under another name."""
    kind, data = sealed(of)
    told = {"instance": BOX, "name": name, "generation": 1}
    return (kind, {**data, "name": name, "step": step}), ("checkpoint.acked", told)


def test_one_that_has_another_name_without_a_step_stays() -> None:
    """accelerate writes `best` with the bytes of step_100: they are one folder here."""
    run = run_of(*TRAINING, *here(10), *under("best", None, 10), *here(20), *here(30))
    assert going(run, Keep(last=1)) == [20]


def test_one_that_stays_under_either_of_its_names_stays() -> None:
    run = run_of(*TRAINING, *here(50), *under("epoch_1", 1, 50), *here(60), *here(70))
    assert going(run, Keep(every=50)) == [60]
    assert going(run, Keep(last=1)) == [50, 60]
    twice = run_of(*TRAINING, *here(50), *here(60), *under("again", 70, 50))
    assert going(twice, Keep(last=1)) == [60], "the newest of its names counts"


def test_what_was_let_go_and_gets_a_name_to_keep_comes_home_again() -> None:
    run = run_of(*TRAINING, *here(10), *here(20), pruned(10), *under("best", None, 10))
    assert run.pruned == ()
    assert [seal.name for seal in missing_here(run)] == ["checkpoint-10", "best"]


def measured(step: int, **metrics: float) -> Told:
    data = {"instance": BOX, "name": f"checkpoint-{step}", "generation": 1}
    return "checkpoint.measured", {**data, "digest": DIGEST[step], "metrics": metrics}


def test_one_that_may_be_measured_yet_stays_until_a_later_one_is() -> None:
    """A trainer that saves first and evaluates then."""
    keep = Keep(best=LOSS)
    told = (*TRAINING, *here(10, eval_loss=2.0), *here(20), *here(30))
    assert going(run_of(*told), keep) == []
    told = (*told, measured(30, eval_loss=1.9))
    assert going(run_of(*told), keep) == [10, 20]
    told = (*told, measured(20, eval_loss=1.0))
    assert going(run_of(*told), keep) == [10], "30 is the newest"
    again = (*told, exited(rc=1, why="crash"), settled(), attempt(2), started(2))
    kind, data = sealed(15, 2)
    run = run_of(*again, (kind, data), mirrored(15), acked(15))
    assert 15 not in going(run, keep), "a later attempt is measured later"


def test_what_was_let_go_is_not_fetched_again_and_is_no_source() -> None:
    run = run_of(*TRAINING, *here(10), *here(20), pruned(10))
    assert DIGEST[10] not in run.mirrored
    assert missing_here(run) == ()
    assert never_came(run) == ()
    only = run_of(*TRAINING, *here(10), pruned(10))
    assert newest_source(only, BOX) is None
    assert going(run, Keep(last=1)) == []


def test_what_a_later_attempt_trains_anew_comes_home_again() -> None:
    run = run_of(
        *BOOTED, prepared(), attempt(), started(), *here(10), *here(20), pruned(10),
        exited(rc=1, why="crash"), settled(), attempt(2), started(2), sealed(10, 2),
    )  # fmt: skip
    assert run.pruned == ()
    assert {seal.attempt for seal in missing_here(run)} == {1, 2}
    told_twice = run_of(*TRAINING, *here(10), *here(20), pruned(10), sealed(10))
    assert told_twice.pruned == (DIGEST[10],)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(1, 99), min_size=1, max_size=12, unique=True),
    values=st.lists(st.floats(0, 9), min_size=12, max_size=12),
    last=st.none() | st.integers(1, 5),
    count=st.integers(1, 3),
    best=st.booleans(),
    every=st.none() | st.integers(1, 50),
)
def test_letting_go_in_any_order_of_arrival_keeps_the_policy_and_never_takes_back(
    steps: list[int],
    values: list[float],
    last: int | None,
    count: int,
    best: bool,
    every: int | None,
) -> None:
    if last is None and every is None and not best:
        return
    keep = Keep(last, LOSS if best else None, count, every)
    told: list[Told] = list(TRAINING)
    went: list[int] = []
    for step, value in zip(steps, values, strict=False):
        told += here(step, eval_loss=value)
        first = {seal.digest for seal in prunable(run_of(*told), keep)}
        for seal in prunable(run_of(*told), keep):
            assert seal.step is not None
            told.append(pruned(seal.step))
            went.append(seal.step)
            left = {each.digest for each in prunable(run_of(*told), keep)}
            assert left <= first, "letting one go makes no other one go"
        run = run_of(*told)
        newest = newest_source(run, None)
        assert newest and newest.step == max(set(steps) & {s.step for s in run.seals} - set(went))
    stay = sorted(set(steps) - set(went))
    assert max(steps) in stay
    assert set(stay) >= set(sorted(steps)[-last:] if last else [])
    assert all(step in stay for step in steps if every and step % every == 0)
    assert len(went) == len(set(went))
