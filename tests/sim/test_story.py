"""The whole story under simulation: whatever dies and whenever, nothing is lost or left billing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.core.fold import fold_all
from orchestrator.core.run import Run
from orchestrator.daemon import Scheduler
from orchestrator.errors import NoCapacity, Transient
from orchestrator.holder import Holder
from sim.story import RUN, UNDISTURBED, Story
from sim.world import SimTasks


def check(story: Story, run: Run) -> None:
    """What must hold at the end of any story that succeeds."""
    assert (run.state, run.reason) == ("SUCCEEDED", "trained to the end")
    assert set(story.mirror.published) == set(run.mirrored)
    assert UNDISTURBED - set(run.mirrored) == _went_down(run)
    assert story.world.living() == []
    assert run.still_billing == ()
    assert run == fold_all(RUN, story.events())
    spans = sorted((each.intended_at, each.gone_at) for each in run.instances)
    for (_, ended), (began, _) in pairwise(spans):
        assert ended is not None and ended <= began, "instance intervals overlap"


def _went_down(run: Run) -> set[str]:
    """Sealed on a box that died before they were here: reported as missing, never in silence."""
    lost = {each.id for each in run.instances if each.lost}
    down = [seal for seal in run.seals if seal.instance in lost and seal.digest not in run.mirrored]
    assert {seal.name for seal in down} == set(run.missing)
    return {seal.digest for seal in down}


def test_an_undisturbed_run(tmp_path: Path) -> None:
    story = Story(tmp_path)
    run = story.run()
    check(story, run)
    assert (len(run.attempts), len(run.instances)) == (1, 1)


def _writes_of_an_undisturbed_run(folder: Path) -> int:
    story = Story(folder)
    story.run()
    return story.writes


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.long)], ids=["some", "all"])
def test_a_controller_that_dies_at_any_write_costs_nothing(
    tmp_path: Path, each: int, after: bool
) -> None:
    writes = _writes_of_an_undisturbed_run(tmp_path / "count")
    assert writes > 25
    for at in range(1, writes + 1, each):
        story = Story(tmp_path / str(at))
        run = story.run(crash_at=at, after=after)
        check(story, run)
        rented = [one for one in run.instances if not one.refused]
        assert (len(run.attempts), len(rented)) == (1, 1), f"died at write {at}"
        assert len(story.world.boxes) == 1, f"died at write {at}"


@pytest.mark.parametrize("moment", range(0, 80, 4))
def test_a_box_that_dies_at_any_moment_is_replaced(tmp_path: Path, moment: int) -> None:
    story = Story(tmp_path, seed=moment)
    killed = []

    def kill(story: Story, run: Run) -> None:
        living = story.world.living()
        if living and not killed and story.world.now_s - living[0].born_s >= moment:
            killed.append(living[0].provider_id)
            story.world.kill(living[0])

    run = story.run(meddle=kill)
    check(story, run)
    assert len(run.instances) <= 2
    resumed = run.attempts[-1].resume
    if len(run.attempts) == 2 and resumed:
        assert resumed.step >= moment - 27, "a complete checkpoint was not used"


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_restarts_in_place(tmp_path: Path, seed: int) -> None:
    story = Story(tmp_path, seed=seed)
    story.world.faults.crash_at_step = 35
    run = story.run()
    check(story, run)
    assert (len(run.attempts), len(run.instances)) == (2, 1)
    assert run.attempts[1].resume and run.attempts[1].resume.step == 30


@pytest.mark.parametrize("moment", range(0, 70, 5))
def test_a_teardown_at_any_moment_leaves_nothing(tmp_path: Path, moment: int) -> None:
    story = Story(tmp_path, seed=moment)
    began_s = story.world.now_s

    def ask(story: Story, run: Run) -> None:
        if not run.teardown and story.world.now_s - began_s >= moment:
            story._ledger().append(RUN, "requested.teardown", {"reason": "enough"})

    run = story.run(meddle=ask)
    assert run.terminal
    assert story.world.living() == []
    assert run.still_billing == ()
    sealed = {seal.digest for seal in run.seals}
    assert sealed <= set(story.mirror.published)


@pytest.mark.parametrize("moment", range(0, 30, 3))
def test_a_box_that_dies_during_a_teardown(tmp_path: Path, moment: int) -> None:
    story = Story(tmp_path, seed=moment)
    began_s = story.world.now_s

    def meddle(story: Story, run: Run) -> None:
        past = story.world.now_s - began_s
        if not run.teardown and past >= 30:
            story._ledger().append(RUN, "requested.teardown", {"reason": "enough"})
        if run.teardown and past >= 30 + moment:
            for box in story.world.living():
                story.world.kill(box)

    run = story.run(meddle=meddle)
    assert run.state == "CANCELLED"
    assert story.world.living() == []
    assert run.still_billing == ()


def test_a_lost_answer_rents_once(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.world.faults.lose_answer = 1
    check(story, story.run())
    assert len(story.world.boxes) == 1


@pytest.mark.parametrize("hide_s", [0, 3, 9])
def test_a_lost_answer_is_looked_for_as_long_as_the_list_may_be_old(
    tmp_path: Path, hide_s: float
) -> None:
    story = Story(tmp_path, listing_lag_s=10.0)
    story.world.faults.lose_answer, story.world.faults.hide_s = 1, hide_s
    check(story, story.run())
    assert len(story.world.boxes) == 1


def test_a_box_that_appears_when_nobody_looks_for_it_any_more_is_ended(tmp_path: Path) -> None:
    story = Story(tmp_path, listing_lag_s=2.0)
    story.world.faults.lose_answer, story.world.faults.hide_s = 1, 12.0
    run = story.run()
    assert run.state == "SUCCEEDED"
    assert len(story.world.boxes) == 2
    assert story.world.living() == []
    assert "instance.reappeared" in [event.kind for event in story.events()]


def test_a_restarted_box_is_prepared_again_and_training_goes_on(tmp_path: Path) -> None:
    story = Story(tmp_path)

    restarted = []

    def restart(story: Story, run: Run) -> None:
        if len(run.mirrored) == 3 and not restarted:
            restarted.append(True)
            story.world.living()[0].restart()

    run = story.run(meddle=restart)
    check(story, run)
    assert (len(run.attempts), len(story.world.boxes)) == (2, 1)
    assert run.attempts[1].resume and run.attempts[1].resume.step == 30
    assert run.attempts[0].lost
    first, second = run.instances
    assert (first.provider_id, first.gone_at) == (second.provider_id, second.intended_at)


def test_a_box_that_moves_is_followed(tmp_path: Path) -> None:
    story = Story(tmp_path)

    def move(story: Story, run: Run) -> None:
        if len(run.mirrored) == 2:
            story.world.living()[0].port = 2222

    run = story.run(meddle=move)
    check(story, run)
    assert (len(run.attempts), run.instances[0].port) == (1, 2222)


def test_a_price_that_changes_is_paid_from_then_on(tmp_path: Path) -> None:
    story = Story(tmp_path)

    def raise_price(story: Story, run: Run) -> None:
        if len(run.mirrored) == 3:
            story.world.living()[0].usd_per_hour = 100.0

    run = story.run(meddle=raise_price)
    (instance,) = run.instances
    assert instance.gone_at
    (rate,) = instance.rates
    before_h = (rate.at - instance.intended_at).total_seconds() / 3600
    after_h = (instance.ends_at(instance.gone_at) - rate.at).total_seconds() / 3600
    assert run.spent_usd(instance.gone_at) == pytest.approx(before_h + 100 * after_h, rel=0.02)


def test_a_machine_that_slept_has_lost_no_box(tmp_path: Path) -> None:
    story = Story(tmp_path)
    slept = []

    def sleep(story: Story, run: Run) -> None:
        if len(run.mirrored) == 2 and not slept:
            slept.append(True)
            story.world.faults.listing = 2
            story.world.clock.advance(8 * 3600)

    run = story.run(meddle=sleep, limit_s=12 * 3600)
    check(story, run)
    assert len(run.instances) == 1


def test_a_create_that_failed_for_sure_is_tried_again(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.world.faults.create = [Transient("502"), Transient("502")]
    check(story, story.run())
    assert len(story.world.boxes) == 1


def test_no_capacity_anywhere_ends_the_run(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.world.faults.create = [NoCapacity("none left")]
    run = story.run()
    assert (run.state, run.outcome and run.outcome.code) == ("FAILED", "capacity")
    assert story.world.boxes == {}


def test_a_provider_that_fails_to_list_is_not_a_lost_box(tmp_path: Path) -> None:
    story = Story(tmp_path)

    def trouble(story: Story, run: Run) -> None:
        if run.attempts and len(run.seals) < 3:
            story.world.faults.listing = 1

    run = story.run(meddle=trouble)
    check(story, run)
    assert len(run.instances) == 1


def test_two_controllers_one_acts(tmp_path: Path) -> None:
    story = Story(tmp_path)
    living = SqliteLedger(tmp_path / "ledger.db", story.world.clock, Holder.current())
    assert living.acquire(RUN)
    tasks = SimTasks(story.world)
    scheduler = Scheduler(story._ports(story._ledger(), tasks))
    for _ in range(5):
        scheduler.turn()
        tasks.run_due()
        story.world.clock.advance(1)
    assert story.world.boxes == {}


@pytest.mark.parametrize("edited_s", [5, 71])  # it boots, it is drained
def test_a_key_of_another_account_proves_nothing_gone(tmp_path: Path, edited_s: int) -> None:
    """Its list is empty, and so it is for a box that bills on in the account of before."""
    story = Story(tmp_path)
    world, began_s = story.world, story.world.now_s
    states = []

    def edit_the_key(story: Story, run: Run) -> None:
        past = world.now_s - began_s
        world.key_id = "another" if edited_s <= past < edited_s + 150 else world.account
        if world.key_id == "another":
            states.append((run.terminal, len(run.instances)))

    run = story.run(meddle=edit_the_key)
    check(story, run)
    assert len(world.boxes) == 1
    assert states and set(states) == {(False, 1)}


@pytest.mark.parametrize("lost_s", [25, 71, 73])
def test_a_box_that_lost_our_key_gets_it_again(tmp_path: Path, lost_s: int) -> None:
    """While it trains, and while it is drained."""
    story = Story(tmp_path)
    world, began_s = story.world, story.world.now_s
    locked = []

    def lock(story: Story, run: Run) -> None:
        if not locked and world.now_s - began_s >= lost_s:
            locked.append(world.now_s)
            world.living()[0].has_key = False

    run = story.run(meddle=lock)
    check(story, run)
    assert locked and len(run.instances) == 1
    assert story.world.now_s - began_s < 150


def test_a_new_key_of_the_same_account_goes_on(tmp_path: Path) -> None:
    story = Story(tmp_path)

    def rotate(story: Story, run: Run) -> None:
        if len(run.mirrored) == 2:
            story.world.key_id = story.world.account = "rotated"

    run = story.run(meddle=rotate)
    check(story, run)
    assert [each.key_id for each in run.instances] == ["rotated"]
