"""Whole runs whose mirror is full for a while, or keeps only some: nothing is lost for that."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from kit.plans import changed

from orchestrator.core.fold import fold_all
from orchestrator.core.keep import Keep
from orchestrator.core.metrics import Metric
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.errors import CommandFailed, Refused, StorageBlocked, Unreachable
from sim.story import RUN, UNDISTURBED, Story, make_plan
from sim.world import checkpoint

HOUR = 3600.0


def full() -> StorageBlocked:
    return StorageBlocked("The disk is full.", hint="free some", reason="full")


def kinds(story: Story) -> list[str]:
    return [event.kind for event in story.events()]


@pytest.mark.parametrize("sealed", [1, 3, 7], ids=["early", "midway", "in the drain"])
def test_a_disk_that_is_full_for_five_hours_loses_nothing(tmp_path: Path, sealed: int) -> None:
    story = Story(tmp_path, step_s=60.0)
    began: list[float] = []

    def fill(story: Story, run: Run) -> None:
        now_s = story.world.now_s
        if len(run.seals) >= sealed and not began:
            began.append(now_s)
        past = now_s - began[0] if began else 0.0
        story.mirror.blocked = full() if began and past < 5 * HOUR else None

    run = story.run(meddle=fill, limit_s=8 * HOUR)
    assert (run.state, run.reason) == ("SUCCEEDED", "trained to the end")
    assert set(story.mirror.published) == UNDISTURBED
    assert len(run.instances) == 1
    told = kinds(story)
    assert 1 <= told.count("mirror.paused") == told.count("mirror.resumed") <= 2
    assert run.paused is None
    assert len(told) < 100, "a pause is told once"


def test_a_disk_that_stays_full_ends_the_box_after_a_day_and_says_what_is_lost(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, step_s=600.0)
    story.mirror.blocked = full()
    run = story.run(limit_s=40 * HOUR)
    assert run.state == "FAILED"
    assert "final" in run.missing
    ended = next(event for event in story.events() if event.kind == "drain.ended")
    assert "24h" in ended.data["why"]
    assert story.world.living() == []


def keeping(keep: Keep) -> Plan:
    plan = make_plan()
    return changed(plan, checkpoints=replace(plan.phases[0].checkpoints, keep=keep))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_let_go_stays_gone_and_the_rest_is_here(tmp_path: Path, seed: int) -> None:
    story = Story(tmp_path, seed=seed, plan=keeping(Keep(last=2, every=30)))
    run = story.run()
    assert run.state == "SUCCEEDED"
    here = {checkpoint(step).digest for step in (30, 50, 60)} | {checkpoint(60, True).digest}
    assert set(story.mirror.published) == here == set(run.mirrored)
    gone = {checkpoint(step).digest for step in (10, 20, 40)}
    assert set(run.pruned) == gone == set(story.mirror.pruned)
    assert len(story.mirror.pruned) == 3, "each goes once"
    assert run.missing == ()
    assert run == fold_all(RUN, story.events())


@pytest.mark.parametrize("seed", range(2))
def test_a_controller_that_dies_while_it_lets_go_lets_go_once_more(
    tmp_path: Path, seed: int
) -> None:
    plan = keeping(Keep(last=1))
    count = Story(tmp_path / "count", seed=seed, plan=plan)
    count.run()
    for at in range(16 + seed, count.writes + 1, 20):
        story = Story(tmp_path / str(at), seed=seed, plan=plan)
        run = story.run(crash_at=at, after=bool(at % 2))
        assert run.state == "SUCCEEDED", f"died at write {at}"
        assert set(story.mirror.published) == set(run.mirrored), f"died at write {at}"
        assert set(run.pruned).isdisjoint(run.mirrored)


def test_a_box_that_dies_resumes_from_what_was_kept(tmp_path: Path) -> None:
    story = Story(tmp_path, plan=keeping(Keep(last=1)))
    killed: list[str] = []

    def kill(story: Story, run: Run) -> None:
        if len(run.pruned) >= 2 and not killed:
            killed.append(story.world.living()[0].provider_id)
            story.world.kill(story.world.living()[0])

    run = story.run(meddle=kill)
    assert run.state == "SUCCEEDED"
    resumed = run.attempts[1].resume
    assert resumed and resumed.step >= 30
    assert resumed.digest not in run.pruned


@pytest.mark.parametrize("where", ["box", "here"])
def test_a_disk_that_runs_low_is_told_once_and_once_that_it_is_well(
    tmp_path: Path, where: str
) -> None:
    story = Story(tmp_path, step_s=10.0)
    disk = story.world if where == "box" else story.mirror

    def fill(story: Story, run: Run) -> None:
        # A checkpoint here is one byte, and two more have to fit.
        told = kinds(story).count("disk.low")
        disk.free_bytes = 1 if run.seals and not told else 10**12

    run = story.run(meddle=slow_training(story, fill), limit_s=3 * HOUR)
    assert run.state == "SUCCEEDED"
    low = [event.data for event in story.events() if event.kind == "disk.low"]
    assert [(each["where"], each["free_bytes"]) for each in low] == [(where, 1)]
    assert low[0]["needed_bytes"] >= 2
    assert kinds(story).count("disk.eased") == 1
    assert run.disk_low == {}


def slow_training(story: Story, then: Callable[[Story, Run], None]) -> Callable[[Story, Run], None]:
    """The trainer gains a step in sixty seconds, so that there is time to look at disks."""

    def meddle(story: Story, run: Run) -> None:
        for box in story.world.living():
            for attempt in box.attempts.values():
                attempt["began_s"] += 10 * 59 / 60
        then(story, run)

    return meddle


def test_what_is_damaged_here_is_fetched_again_when_it_is_asked_for(tmp_path: Path) -> None:
    """As `pull` asks, of a checkpoint that its box still has."""
    story = Story(tmp_path)
    digest, asked = checkpoint(20).digest, []

    def damage(story: Story, run: Run) -> None:
        if digest in run.mirrored and len(run.mirrored) == 3 and not asked:
            asked.append(run.seq)
            del story.mirror.published[digest]
            ledger = story._ledger()
            ledger.append(RUN, "requested.fetch", {"name": "checkpoint-20", "digest": digest})
            ledger.close()

    run = story.run(meddle=damage)
    assert (run.state, set(story.mirror.published)) == ("SUCCEEDED", UNDISTURBED)
    again = [
        event.seq
        for event in story.events()
        if event.kind == "checkpoint.mirrored" and event.data["digest"] == digest
    ]
    assert len(again) == 2
    assert again[0] < asked[0] < again[1]


def test_a_disk_that_is_not_mounted_when_a_box_is_replaced_costs_no_step(tmp_path: Path) -> None:
    """The checkpoint to resume from is on it: the new box waits, and is not given up for that."""
    story = Story(tmp_path, step_s=1.0)
    away: list[float] = []

    def unplug(story: Story, run: Run) -> None:
        if len(run.mirrored) >= 3 and not away:
            away.append(story.world.now_s)
            story.mirror.blocked = StorageBlocked("It is not mounted.", reason="missing")
            story.world.kill(story.world.living()[0])
        if away and story.world.now_s - away[0] > 1200:
            story.mirror.blocked = None

    run = story.run(meddle=unplug)
    assert (run.state, len(run.instances), run.unusable) == ("SUCCEEDED", 2, ())
    resumed = run.attempts[-1].resume
    assert resumed and resumed.step >= 30
    paused = [event.data for event in story.events() if event.kind == "mirror.paused"]
    assert [each["reason"] for each in paused] == ["missing"]


@pytest.mark.parametrize("ends", ["start gives up", "teardown"])
def test_a_drain_before_a_restart_brings_home_what_the_first_attempt_left(
    tmp_path: Path, ends: str
) -> None:
    """The trainer crashed, the next start fails, and what was sealed is still on its way."""
    story = Story(tmp_path, step_s=5.0)
    faults, ended = story.world.faults, list[float]()
    faults.crash_at_step, faults.pull = 35, Unreachable("the line is down")

    def fail(story: Story, run: Run) -> None:
        if run.attempt and run.attempt.started_at:
            faults.start = CommandFailed("no space left", 1) if ends != "teardown" else full()
        if len(run.attempts) == 2 and ends == "teardown" and not run.teardown:
            story._ledger().append(RUN, "requested.teardown", {"reason": "enough"})
        if run.outcome and not ended:
            ended.append(story.world.now_s)
        if ended and story.world.now_s - ended[0] > 1800:
            faults.pull = None

    run = story.run(meddle=fail, limit_s=2 * HOUR)
    assert run.attempts[-1].started_at is None
    assert (run.missing, len(run.seals)) == ((), 3)
    assert set(story.mirror.published) == {checkpoint(step).digest for step in (10, 20, 30)}
    assert (len(run.instances), story.world.living()) == (1, [])


@pytest.mark.parametrize("what", ["log alone", "all"])
@pytest.mark.parametrize("sealed", [2, 7], ids=["midway", "in the drain"])
def test_a_full_disk_under_the_state_for_hours_is_no_fault_of_the_box(
    tmp_path: Path, sealed: int, what: str
) -> None:
    story = Story(tmp_path, step_s=30.0)
    began: list[float] = []

    def fill(story: Story, run: Run) -> None:
        if len(run.seals) >= sealed and not began:
            began.append(story.world.now_s)
        is_full = bool(began) and story.world.now_s - began[0] < 3 * HOUR
        story.fill(is_full=is_full)
        story.is_full = is_full and what == "all"

    run = story.run(meddle=fill, limit_s=8 * HOUR)
    assert (run.state, run.reason) == ("SUCCEEDED", "trained to the end")
    assert len(run.instances) == len(run.attempts) == 1
    assert set(story.mirror.published) == UNDISTURBED
    assert story.world.now_s - began[0] > 3 * HOUR - 60 or what == "log alone"
    told = kinds(story)
    assert told.count("mirror.paused") == told.count("mirror.resumed") <= 2
    assert what == "all" or "mirror.paused" in told
    assert len(told) < 100


def test_keys_that_a_store_refuses_cost_no_checkpoint(tmp_path: Path) -> None:
    """All of it lies on the volume of a lost box; the next box has it and may resume from it."""
    story = Story(tmp_path, step_s=1.0, volume="vol-1", volume_store=True)
    story.world.volume = {}
    faults = story.world.faults
    faults.store, faults.pull = Refused("403"), Unreachable("the line is down")

    def kill(story: Story, run: Run) -> None:
        if len(run.seals) >= 3 and faults.pull:
            faults.pull = None
            story.world.kill(story.world.living()[0])

    run = story.run(meddle=kill)
    assert (run.state, len(run.instances), run.missing) == ("SUCCEEDED", 2, ())
    resumed = run.attempts[1].resume
    assert resumed and resumed.step >= 30
    assert set(story.mirror.published) == UNDISTURBED
    told = kinds(story)
    assert ("checkpoint.failed" in told, told.count("store.refused")) == (False, 1)


@pytest.mark.parametrize("name", ["checkpoint-20", "final"])
def test_what_is_not_here_any_more_before_its_box_was_told_is_fetched_again(
    tmp_path: Path, name: str
) -> None:
    """The record says that it is here; the only copy is on the box."""
    story = Story(tmp_path)
    removed: list[str] = []

    def remove(story: Story, run: Run) -> None:
        for seal in run.seals:
            if seal.name == name and seal.digest in run.mirrored and not removed:
                assert not seal.acked
                removed.append(seal.digest)
                del story.mirror.published[seal.digest]

    run = story.run(meddle=remove)
    assert removed
    assert (run.state, set(story.mirror.published)) == ("SUCCEEDED", UNDISTURBED)
    assert all(seal.acked for seal in run.seals)
    assert kinds(story).count("requested.fetch") == 1


def test_a_mirror_that_is_claimed_anew_is_filled_with_what_the_box_still_has(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, step_s=10.0)
    away: list[float] = []

    def empty(story: Story, run: Run) -> None:
        if len(run.mirrored) == 4 and all(seal.acked for seal in run.seals) and not away:
            away.append(story.world.now_s)
            story.mirror.published.clear()
            story.mirror.blocked = StorageBlocked("It is not there.", reason="missing")
        if away and story.world.now_s - away[0] > 100:
            story.mirror.blocked = None

    run = story.run(meddle=slow_training(story, empty), limit_s=3 * HOUR)
    assert run.state == "SUCCEEDED"
    kept = {checkpoint(step).digest for step in (30, 40, 50, 60)} | {checkpoint(60, True).digest}
    assert set(story.mirror.published) == kept


@pytest.mark.parametrize("reason", ["full", "missing"])
def test_a_trainer_that_does_not_start_while_the_mirror_is_paused_is_given_up(
    tmp_path: Path, reason: str
) -> None:
    """What cannot be read here may be what it starts from: it has a day. A full disk keeps no
    trainer from starting."""
    story = Story(tmp_path, step_s=20.0, host_loss=1)
    killed_at: list[float] = []

    def replace_box(story: Story, run: Run) -> None:
        if run.seals and not killed_at:
            story.mirror.blocked = StorageBlocked("Blocked.", reason=reason)
        if run.paused and not killed_at:
            killed_at.append(story.world.now_s)
            story.world.faults.start = Unreachable("it hangs")
            story.world.kill(story.world.living()[0])

    run = story.run(meddle=replace_box, limit_s=40 * HOUR)
    assert (run.state, run.outcome and run.outcome.code) == ("FAILED", "host")
    second = run.instances[1]
    assert second.lost and "did not start" in second.lost
    assert second.lost_at and run.paused
    waited_s = (second.lost_at - run.paused.at).total_seconds()
    assert waited_s > 23 * HOUR if reason == "missing" else waited_s < HOUR
    assert story.world.living() == []


@pytest.mark.parametrize("worst", [10, 30])
def test_the_best_stays_although_it_is_measured_after_it_came(tmp_path: Path, worst: int) -> None:
    keep = Keep(last=1, best=Metric("eval_loss", "min"))
    story = Story(tmp_path, step_s=10.0, plan=keeping(keep))
    written: set[int] = set()

    def measure(story: Story, run: Run) -> None:
        for seal in run.seals:
            if seal.digest in run.mirrored and seal.step not in written and not seal.final:
                assert seal.step
                written.add(seal.step)
                loss = 1.0 if seal.step == 40 - worst else 2.0 + seal.step / 100
                with (tmp_path / "runs" / RUN / seal.instance / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps({"step": seal.step, "eval_loss": loss}) + "\n")

    run = story.run(meddle=slow_training(story, measure), limit_s=3 * HOUR)
    assert run.state == "SUCCEEDED"
    here = {checkpoint(40 - worst).digest, checkpoint(60).digest, checkpoint(60, True).digest}
    assert here <= set(story.mirror.published) == set(run.mirrored)
    assert len(run.pruned) >= 2, "the rest is let go"
