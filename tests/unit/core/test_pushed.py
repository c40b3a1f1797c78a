"""Checkpoints in S3: what a box may say of them, and what they are worth to a run."""

from __future__ import annotations

from typing import Any

import pytest
from kit.history import (
    BOOTED,
    BOX,
    DIGEST,
    OFFERS,
    TEARDOWN,
    TRAINING,
    Told,
    at,
    attempt,
    created,
    drain,
    exited,
    gone,
    intended,
    lost,
    mirrored,
    planned,
    prepared,
    run_of,
    running,
    sealed,
    settled,
    started,
    terminating,
)

from orchestrator.core.actions import Deadlines, Drain, Drained, Seen, Start, Wait
from orchestrator.core.decide import decide
from orchestrator.core.facts import to_event
from orchestrator.core.holdings import (
    is_stored,
    missing_here,
    never_came,
    newest_source,
    unlooked,
    unpushed,
)
from orchestrator.core.plan import Stage
from orchestrator.core.run import Run, final_is_safe
from remote.contract import ContractError, Fact, pushed_uri, split_uri

ALSO = "s3://bucket/prefix"
SECOND = "demo-1-2"
HEARD = Seen(presence={BOX: "present", SECOND: "present"}, agent_alive=True)
NEXT_BOX = (intended(SECOND), created(SECOND), running(SECOND), prepared(SECOND))
LOST = (lost(), terminating(), gone())


def failed(step: int, where: str) -> Told:
    told = {"instance": BOX, "name": f"checkpoint-{step}", "generation": 1, "where": where}
    return "checkpoint.failed", {**told, "reason": "other bytes"}


def test_bytes_that_are_wrong_in_one_place_are_asked_for_in_the_other() -> None:
    both = (planned(also=ALSO), *TRAINING, sealed(10), pushed(10))
    at_box, in_store = (run_of(*both, failed(10, where)) for where in ("box", "store"))
    assert [seal.name for seal in missing_here(at_box)] == ["checkpoint-10"]
    assert is_stored(at_box, at_box.seals[0])
    assert [seal.name for seal in missing_here(in_store)] == ["checkpoint-10"]
    assert not is_stored(in_store, in_store.seals[0])
    neither = run_of(*both, failed(10, "store"), failed(10, "box"))
    assert (missing_here(neither), never_came(neither)) == ((), ("checkpoint-10",))
    asked = ("requested.fetch", {"name": "checkpoint-10", "digest": DIGEST[10]})
    assert is_stored(run_of(*both, failed(10, "store"), asked), neither.seals[0]) is False
    again = run_of(*both, failed(10, "store"), asked)
    assert is_stored(again, again.seals[0])


def test_what_a_lost_box_left_in_s3_with_other_bytes_is_no_source() -> None:
    run = run_of(planned(also=ALSO), *TRAINING, sealed(10), pushed(10), *LOST, failed(10, "store"))
    assert newest_source(run, None) is None
    assert missing_here(run) == ()


def uri(name: str, digest: str) -> str:
    return pushed_uri(ALSO, "demo-1", name, digest)


def pushed(step: int, *, final: bool = False) -> Told:
    name, digest = "final" if final else f"checkpoint-{step}", DIGEST[step + 100 * final]
    data = {"instance": BOX, "name": name, "generation": 1}
    return "checkpoint.pushed", {**data, "digest": digest, "uri": uri(name, digest)}


def looked(box: str = BOX) -> Told:
    return "instance.looked", {"instance": box, "message": "nothing"}


def also_run(*told: Told, **plan: Any) -> Run:
    return run_of(planned(also=ALSO, **plan), *told)


def fact(kind: str, **data: Any) -> Fact:
    return Fact(BOX, "b", 1, "", kind, data)


def fact_of(step: int, **changes: Any) -> Fact:
    data = {key: value for key, value in pushed(step)[1].items() if key != "instance"}
    return fact("checkpoint.pushed", **{**data, **changes})


def test_a_push_is_an_event_once() -> None:
    run = also_run(*TRAINING, sealed(10))
    told = to_event(run, fact_of(10))
    assert told == pushed(10)
    assert to_event(also_run(*TRAINING, sealed(10), told), fact_of(10)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"uri": "s3://elsewhere/x"},
        {"uri": uri("checkpoint-10", DIGEST[10]) + "/.."},
        {"name": "checkpoint-99"},
        {"name": "../x"},
        {"digest": DIGEST[20]},
        {"generation": 0},
    ],
    ids=str,
)
def test_what_no_honest_box_says_of_a_push_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        to_event(also_run(*TRAINING, sealed(10)), fact_of(10, **changes))


def test_a_job_without_a_second_home_hears_of_none() -> None:
    with pytest.raises(ContractError):
        to_event(run_of(*TRAINING, sealed(10)), fact_of(10))


def test_a_trouble_is_told_until_a_push_works() -> None:
    run = also_run(*TRAINING, sealed(10))
    trouble = to_event(run, fact("push.failed", message="x" * 1000))
    assert trouble and len(trouble[1]["message"]) == 500
    given_up = to_event(
        run, fact("push.gave_up", name="checkpoint-10", generation=1, why="no room")
    )
    assert given_up and given_up[0] == "push.failed"
    assert [seal.name for seal in unpushed(run)] == ["checkpoint-10"]
    assert unpushed(also_run(*TRAINING, sealed(10), given_up)) == ()
    with pytest.raises(ContractError):
        to_event(run, fact("push.gave_up", name="checkpoint-99", generation=1, why="x"))
    assert also_run(*TRAINING, sealed(10), trouble).push_trouble
    assert not also_run(*TRAINING, sealed(10), trouble, pushed(10)).push_trouble


def test_the_newest_may_be_in_s3_alone() -> None:
    run = also_run(*TRAINING, sealed(10), mirrored(10), sealed(20), pushed(20), *LOST)
    source = newest_source(run, None)
    assert source and source.name == "checkpoint-20"


def test_what_was_pushed_is_fetched_after_its_box_is_gone() -> None:
    run = also_run(*TRAINING, sealed(10), sealed(20), pushed(20), *LOST)
    assert [seal.name for seal in missing_here(run)] == ["checkpoint-20"]
    assert never_came(run) == ("checkpoint-10",)


@pytest.mark.parametrize("store", [True, False], ids=["with-keys", "without"])
def test_a_volume_that_answers_s3_needs_no_box(store: bool) -> None:
    told = [planned(volume="vol-1", volume_store=store), *TRAINING, sealed(10), *LOST]
    run = run_of(*told)
    assert bool(missing_here(run)) is store
    assert is_stored(run, run.seals[0]) is store
    assert [each.id for each in unlooked(run)] == ([BOX] if store else [])


def test_final_weights_in_s3_are_safe() -> None:
    told = (*TRAINING, sealed(60), sealed(60, final=True))
    assert not final_is_safe(also_run(*told))
    assert final_is_safe(also_run(*told, pushed(60, final=True)))


def test_a_run_ends_well_with_its_final_weights_in_s3_alone() -> None:
    told = (*TRAINING, sealed(60, final=True), pushed(60, final=True), exited(), settled())
    ended = ("drain.ended", {"complete": True, "missing": []})
    run = also_run(*told, drain(), ended)
    assert run.outcome and run.outcome.state == "SUCCEEDED"


def step(run: Run, seconds: float, seen: Seen = HEARD) -> Any:
    return decide(run, (Stage("main", OFFERS),), seen, at(seconds), Deadlines())


def test_s3_is_asked_what_a_lost_box_left_before_anything_is_resumed() -> None:
    told = (*TRAINING, sealed(10), *LOST)
    waiting = step(also_run(*told), 20)
    assert isinstance(waiting, Wait) and "S3" in waiting.why
    assert not isinstance(step(also_run(*told, looked()), 20), Wait)
    late = len(told) + 2 + Deadlines().look_s
    assert not isinstance(step(also_run(*told), late), Wait)


def test_it_resumes_from_what_was_found() -> None:
    found = (sealed(40), pushed(40), looked())
    action = step(also_run(*TRAINING, sealed(10), mirrored(10), *LOST, *found, *NEXT_BOX), 30)
    assert isinstance(action, Start) and action.resume and action.resume.step == 40


def test_a_run_that_was_over_when_its_box_was_lost_is_not_trained_again() -> None:
    found = (sealed(60, final=True), pushed(60, final=True), looked())
    action = step(also_run(*TRAINING, sealed(10), *LOST, *found), 30)
    assert isinstance(action, Drain) and action.outcome.state == "SUCCEEDED"


def test_a_box_that_never_trained_is_not_looked_for() -> None:
    assert unlooked(also_run(*BOOTED, prepared(), lost())) == ()


DONE = (*TRAINING, sealed(60, final=True), exited(), settled())


def test_a_drain_waits_for_what_is_being_pushed_and_not_for_ever() -> None:
    run = also_run(*DONE, mirrored(60, final=True), drain())
    assert [seal.name for seal in unpushed(run)] == ["final"]
    waiting = step(run, 30)
    assert isinstance(waiting, Wait) and "to S3" in waiting.why
    push_s = Deadlines().push_s
    assert isinstance(step(run, 30 + push_s), Drained)
    moving = Seen(presence=HEARD.presence, agent_alive=True, moving_at=at(push_s))
    assert isinstance(step(run, 30 + push_s, moving), Wait)


def test_a_drain_that_cannot_mirror_ends_when_all_is_in_s3() -> None:
    """A box is not kept for what a full disk here does not take."""
    run = also_run(*DONE, pushed(60, final=True), drain())
    assert isinstance(step(run, 30), Wait)
    action = step(run, 30 + Deadlines().push_s)
    assert isinstance(action, Drained) and action.missing == ()


def test_what_is_nowhere_else_is_waited_for_longer() -> None:
    run = also_run(*DONE, drain())
    assert isinstance(step(run, 30 + Deadlines().push_s), Wait)


def test_a_drain_without_a_box_brings_home_what_is_in_s3() -> None:
    told = (*TRAINING, sealed(10), pushed(10), TEARDOWN, *LOST, looked(), drain("CANCELLED"))
    waiting = step(also_run(*told), 30)
    assert isinstance(waiting, Wait) and "here" in waiting.why
    home = step(also_run(*told, mirrored(10)), 30)
    assert home == Drained(())


def test_a_second_attempt_needs_its_own_box_looked_at() -> None:
    told = (*TRAINING, *LOST, looked(), *NEXT_BOX, attempt(2, SECOND), started(2), lost(SECOND))
    assert [each.id for each in unlooked(also_run(*told))] == [SECOND]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/a/b/", ("bucket", "a/b")),
        ("s3:///a", None),
        ("http://bucket/a", None),
    ],
    ids=str,
)
def test_an_address_in_s3(address: str, expected: tuple[str, str] | None) -> None:
    if expected is None:
        with pytest.raises(ContractError):
            split_uri(address)
    else:
        assert split_uri(address) == expected
