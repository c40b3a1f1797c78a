"""The table of `decide`: a history and an observation in, one action out."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.history import (
    BOOTED,
    BOX,
    CHEAP,
    DEAR,
    DIGEST,
    ENDED,
    FINISHED,
    OFFERS,
    TEARDOWN,
    TRAINING,
    Told,
    acked,
    at,
    attempt,
    created,
    drain,
    drained,
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

from orchestrator.core.actions import (
    Absent,
    Action,
    Boot,
    Create,
    Deadlines,
    Drain,
    Drained,
    Finish,
    Gone,
    LookAgain,
    Prepare,
    Restarted,
    Resume,
    Seen,
    Start,
    Stop,
    Terminate,
    Wait,
    Warn,
)
from orchestrator.core.decide import decide
from orchestrator.core.holdings import crashes_spent, newest_source
from orchestrator.core.offer import Offer
from orchestrator.core.plan import Stage
from orchestrator.core.run import Run, Source


def choose(run: Run, offers: tuple[Offer, ...], seen: Seen, now: datetime) -> Action:
    return decide(run, (Stage("main", offers),), seen, now, Deadlines())


PRESENT = Seen(presence={BOX: "present"}, agent_alive=True)
GONE = Seen(presence={BOX: "gone"}, agent_alive=True)
SECOND = "demo-1-2"


def seen(base: Seen = PRESENT, **changes: Any) -> Seen:
    return replace(base, **changes)


def refused(box: str = BOX, why: str = "no_capacity", **more: Any) -> Told:
    return "instance.refused", {"instance": box, "why": why, "message": "none", **more}


def restarted(box: str = BOX) -> Told:
    return "instance.restarted", {
        "instance": box,
        "reason": "so it says",
        "host": "127.0.0.1",
        "port": 23,
        "restart_marker": "m2",
    }


def reappeared(box: str = BOX) -> Told:
    return "instance.reappeared", {"instance": box, "provider_id": f"id-{box}"}


def exhausted(again_s: float) -> Told:
    return "offers.exhausted", {"again_at": at(again_s).isoformat()}


CASES: dict[str, tuple[tuple[Told, ...], Seen, Action | type[Action]]] = {
    "a plan rents the cheapest offer": ((), Seen(), Create(CHEAP)),
    "an unanswered create waits for its task": (
        (intended(),),
        seen(busy=frozenset({f"create:{BOX}"})),
        Wait,
    ),
    "an unanswered create is never repeated while the list is unknown": (
        (intended(),),
        Seen(),
        Wait,
    ),
    "an unanswered create is over once the list proves absence": (
        (intended(),),
        Seen(presence={BOX: "gone"}),
        Absent(BOX),
    ),
    "after which another instance is asked for, of the same offer": (
        (intended(), refused(why="absent")),
        Seen(),
        Create(CHEAP),
    ),
    "a provider that does not answer four times is passed over": (
        tuple(each for n in range(1, 5)
              for each in (intended(f"demo-1-{n}"), refused(f"demo-1-{n}", "absent"))),
        Seen(),
        Drain,
    ),
    "a provider that asks for patience is given it": (
        (intended(), refused(why="transient")),
        Seen(waiting=frozenset({"rent:local"})),
        Wait,
    ),
    "a refusal of the account closes the provider": (
        (intended(), refused(why="refused", provider_wide=True)),
        Seen(),
        Drain,
    ),
    "a boot that failed makes room for the other offers": (
        (intended(), created(), lost(), terminating(), gone()),
        Seen(),
        Create(DEAR),
    ),
    "a boot is lost at the deadline of its phase": (
        (intended(), created()),
        seen(boot={BOX: Boot("starting", at(40), 60, "STARTING")}),
        Resume(BOX, "it was still STARTING after 60 s"),
    ),
    "and not before": (
        (intended(), created()),
        seen(boot={BOX: Boot("starting", at(41), 60, "STARTING")}),
        Wait,
    ),
    "a box dearer than allowed is not kept": (
        (*BOOTED, ("instance.priced", {"instance": BOX, "usd_per_hour": 9.0})),
        PRESENT,
        Resume(BOX, "it costs $9.00/h, and $5.00/h is allowed"),
    ),
    "a restart is prepared again": (
        TRAINING,
        seen(presence={BOX: "wiped"}),
        Restarted(BOX),
    ),
    "after a restart the box is prepared": ((*TRAINING, restarted()), PRESENT, Prepare(BOX)),
    "and training goes on from the newest checkpoint": (
        (*TRAINING, sealed(10), mirrored(10), restarted(), prepared()),
        PRESENT,
        Start(BOX, Source("checkpoint-10", 10, DIGEST[10])),
    ),
    "a box that restarts again and again is left": (
        (*TRAINING, restarted(), restarted(), restarted()),
        seen(presence={BOX: "restarted"}),
        Resume(BOX, "it was restarted 4 times"),
    ),
    "a wiped box has nothing left to bring home": (
        (*TRAINING, TEARDOWN, drain("CANCELLED", "asked")),
        seen(presence={BOX: "wiped"}),
        Resume(BOX, "it was restarted, and its disk is empty"),
    ),
    "what was taken for gone and is listed again is ended": (
        (*TRAINING, lost(), terminating(), gone(), reappeared()),
        PRESENT,
        Terminate(BOX),
    ),
    "and holds up the next, for it bills": (
        (*TRAINING, lost(), terminating(), gone(), reappeared()),
        seen(busy=frozenset({f"terminate:{BOX}"})),
        Wait,
    ),
    "a run that has trained asks all offers again later": (
        (*TRAINING, sealed(10), mirrored(10), lost(), terminating(), gone(),
         intended(SECOND), refused(SECOND), intended("demo-1-3", DEAR), refused("demo-1-3")),
        Seen(),
        LookAgain(at(130)),
    ),
    "and waits until then": (
        (*TRAINING, lost(), terminating(), gone(), exhausted(130)),
        Seen(),
        Wait,
    ),
    "then it asks again": (
        (*TRAINING, lost(), terminating(), gone(), exhausted(90)),
        Seen(),
        Create(CHEAP),
    ),
    "no capacity takes the next offer": ((intended(), refused()), Seen(), Create(DEAR)),
    "no offer left ends the run": (
        (intended(), refused(), intended(SECOND, DEAR), refused(SECOND)),
        Seen(),
        Drain,
    ),
    "a created instance boots": ((intended(), created()), PRESENT, Wait),
    "a running instance is prepared": (BOOTED, PRESENT, Prepare(BOX)),
    "preparing is not started twice": (
        BOOTED,
        seen(busy=frozenset({f"prepare:{BOX}"})),
        Wait,
    ),
    "a failed prepare waits before it is tried again": (
        BOOTED,
        seen(waiting=frozenset({f"prepare:{BOX}"})),
        Wait,
    ),
    "a hopeless prepare ends the run": (BOOTED, seen(gave_up={f"prepare:{BOX}": "setup"}), Drain),
    "a prepared instance starts the trainer": ((*BOOTED, prepared()), PRESENT, Start(BOX, None)),
    "an intended attempt is started": (
        (*BOOTED, prepared(), attempt()),
        PRESENT,
        Start(BOX, None, 1),
    ),
    "a running trainer is left alone": (TRAINING, PRESENT, Wait),
    "a dead agent is started again": (TRAINING, seen(agent_alive=False), Start(BOX, None, 1)),
    "a box the provider does not list is lost": (
        TRAINING,
        seen(GONE, silent={BOX: at(99)}),
        Resume,
    ),
    "unless it talks to us: a list may miss it in passing": (TRAINING, GONE, Wait),
    "UNKNOWN is never GONE": (TRAINING, seen(presence={BOX: "unknown"}), Wait),
    "a silent box that the provider lists is not lost": (
        TRAINING,
        seen(silent={BOX: at(-700)}),
        Wait,
    ),
    "but not for ever": (TRAINING, seen(silent={BOX: at(-9999)}), Resume),
    "a silent box of a silent provider is lost after its deadline": (
        TRAINING,
        seen(presence={BOX: "unknown"}, silent={BOX: at(-9999)}),
        Resume,
    ),
    "a broken box is lost": (TRAINING, seen(presence={BOX: "broken"}), Resume),
    "a lost box is ended": ((*TRAINING, lost()), GONE, Terminate(BOX)),
    "an ended box has to be proven gone": (
        (*TRAINING, lost(), terminating()),
        seen(GONE, ended=frozenset({BOX})),
        Gone(BOX),
    ),
    "absence alone is no proof before this process has asked for the end": (
        (*TRAINING, lost(), terminating()),
        GONE,
        Terminate(BOX),
    ),
    "two boxes of a run never bill at once": (
        (*TRAINING, lost(), terminating()),
        seen(busy=frozenset({f"terminate:{BOX}"})),
        Wait,
    ),
    "a box proven gone is replaced": (
        (*TRAINING, lost(), terminating(), gone()),
        GONE,
        Create(CHEAP),
    ),
    "too many losses end the run": (
        (*TRAINING, lost(), gone(), *[each for n in (2, 3) for each in (
            intended(f"demo-1-{n}"), created(f"demo-1-{n}"), prepared(f"demo-1-{n}"),
            lost(f"demo-1-{n}"), gone(f"demo-1-{n}"))]),
        Seen(),
        Drain,
    ),
    "a new box resumes from the newest mirrored checkpoint": (
        (*TRAINING, sealed(10), mirrored(10), sealed(20), lost(), gone(), intended(SECOND),
         created(SECOND), running(SECOND), prepared(SECOND)),
        seen(presence={SECOND: "present"}),
        Start(SECOND, Source("checkpoint-10", 10, DIGEST[10])),
    ),
    "a crash waits until the box has sealed what is left": (
        (*TRAINING, sealed(10), exited(rc=1, why="crash")),
        PRESENT,
        Wait,
    ),
    "a crash restarts in place from the newest sealed checkpoint": (
        (*TRAINING, sealed(10), mirrored(10), sealed(20), exited(rc=1, why="crash"), settled()),
        PRESENT,
        Start(BOX, Source("checkpoint-20", 20, DIGEST[20])),
    ),
    "out of memory is never retried blindly": (
        (*TRAINING, sealed(10), exited(rc=1, why="oom"), settled()),
        PRESENT,
        Drain,
    ),
    "a bad config is never retried blindly": (
        (*TRAINING, exited(rc=2, why="config"), settled()),
        PRESENT,
        Drain,
    ),
    "an agent that died before it sealed what was left is started again": (
        (*TRAINING, sealed(10), exited(rc=1, why="crash")),
        seen(agent_alive=False),
        Start(BOX, None, 1),
    ),
    "a checkpoint that turned out unusable is passed over": (
        (*TRAINING, sealed(10), sealed(20), exited(rc=1, why="crash"), settled(),
         attempt(2, resume=20),
         ("attempt.abandoned", {"attempt": 2, "digest": DIGEST[20], "reason": "changed"})),
        PRESENT,
        Start(BOX, Source("checkpoint-10", 10, DIGEST[10])),
    ),
    "a box lost between the last word and the drain is replaced": (
        (*ENDED, mirrored(60), lost(), terminating(), gone()),
        GONE,
        Create(CHEAP),
    ),
    "two crashes without a step gained end the run": (
        (*TRAINING, exited(rc=1, why="crash"), settled(), attempt(2), started(2),
         exited(2, rc=1, why="crash"), settled(2)),
        PRESENT,
        Drain,
    ),
    "0 with the final weights is success": (ENDED, PRESENT, Drain),
    "0 without final weights is a failure": (
        (*TRAINING, sealed(60), exited(), settled()),
        PRESENT,
        Drain,
    ),
    "draining waits for what is not here": ((*ENDED, drain()), PRESENT, Wait),
    "everything here ends the drain": (
        (*ENDED, mirrored(60), acked(60), mirrored(60, final=True), acked(60, final=True),
         drain()),
        PRESENT,
        Drained(()),
    ),
    "what its box was not told of is looked at before the drain ends": (
        (*ENDED, mirrored(60), mirrored(60, final=True), acked(60, final=True), drain()),
        PRESENT,
        Wait,
    ),
    "a drain before a restart waits for what the crash left": (
        (*TRAINING, sealed(10), exited(rc=1, why="crash"), settled(), attempt(2, resume=10),
         drain("FAILED", "config")),
        PRESENT,
        Wait,
    ),
    "a drain before a restart ends when that is here": (
        (*TRAINING, sealed(10), exited(rc=1, why="crash"), settled(), attempt(2, resume=10),
         mirrored(10), acked(10), drain("FAILED", "config")),
        PRESENT,
        Drained(()),
    ),
    "a drain before the first start has nothing to wait for": (
        (*BOOTED, prepared(), attempt(), drain("CANCELLED", "asked")),
        PRESENT,
        Drained(()),
    ),
    "drained ends what is rented": (
        (*ENDED, mirrored(60), mirrored(60, final=True), drain(), drained()),
        PRESENT,
        Terminate(BOX),
    ),
    "not finished while the provider lists it": (
        (*ENDED, mirrored(60, final=True), drain(), drained(), terminating()),
        seen(ended=frozenset({BOX}), waiting=frozenset({f"terminate:{BOX}"})),
        Wait,
    ),
    "finished when all is gone": (
        (*ENDED, mirrored(60, final=True), drain(), drained(), terminating(), gone()),
        GONE,
        Finish(),
    ),
    "a terminal state is never left": (
        (*ENDED, mirrored(60, final=True), drain(), drained(), terminating(), gone(), FINISHED),
        GONE,
        Wait,
    ),
    "a teardown stops the trainer": (
        (*TRAINING, TEARDOWN, drain("CANCELLED", "asked")),
        PRESENT,
        Stop(1, "TERM"),
    ),
    "a teardown before anything is rented ends at once": (
        (TEARDOWN, drain("CANCELLED", "asked")),
        Seen(),
        Drained(()),
    ),
    "a teardown while booting ends the box": (
        (intended(), created(), TEARDOWN, drain("CANCELLED", "asked"), drained()),
        PRESENT,
        Terminate(BOX),
    ),
    "a teardown does not forget an unanswered create": (
        (intended(), TEARDOWN, drain("CANCELLED", "asked"), drained()),
        Seen(),
        Wait,
    ),
    "an unanswered create that rented nothing is over": (
        (intended(), TEARDOWN, drain("CANCELLED", "asked"), drained()),
        Seen(presence={BOX: "gone"}),
        Absent(BOX),
    ),
    "a box lost with the final weights reopens the run": (
        (*ENDED, mirrored(60), drain(), lost(), terminating(), gone()),
        GONE,
        Create(CHEAP),
    ),
    "a box lost after the final weights came home does not": (
        (*ENDED, mirrored(60), mirrored(60, final=True), drain(), lost(), terminating(), gone()),
        GONE,
        Drained(()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_decide(case: str) -> None:
    told, observation, expected = CASES[case]
    run = run_of(*told)
    run = replace(run, limits=replace(run.limits, budget_usd_per_hour=5.0))
    action = choose(run, OFFERS, observation, at(100))
    if isinstance(expected, type):
        assert isinstance(action, expected), action
    else:
        assert action == expected


@pytest.mark.parametrize(
    ("told", "state", "code"),
    [
        (ENDED, "SUCCEEDED", "done"),
        ((*TRAINING, sealed(60), exited(), settled()), "FAILED", "incomplete"),
        (
            (*TRAINING, sealed(60), exited(rc=1, why="crash"), sealed(60, final=True), settled()),
            "SUCCEEDED",
            "done",
        ),
        ((*TRAINING, exited(rc=1, why="oom"), settled()), "FAILED", "config"),
        ((*TRAINING, TEARDOWN), "CANCELLED", "asked"),
        ((intended(), refused(), intended(SECOND, DEAR), refused(SECOND)), "FAILED", "capacity"),
    ],
    ids=["done", "no final", "error after the end", "oom", "teardown", "capacity"],
)
def test_outcomes(told: tuple[Told, ...], state: str, code: str) -> None:
    action = choose(run_of(*told), OFFERS, PRESENT, at(100))
    assert isinstance(action, Drain)
    assert (action.outcome.state, action.outcome.code) == (state, code)


def test_a_final_that_stopped_early_is_no_success() -> None:
    early = ("checkpoint.sealed", {**sealed(60, final=True)[1], "step": 40})
    action = choose(run_of(*TRAINING, exited(), early, settled()), OFFERS, PRESENT, at(100))
    assert isinstance(action, Drain)
    assert action.outcome.code == "incomplete"


def test_the_budget_begins_the_drain_before_it_is_passed() -> None:
    run = run_of(*TRAINING)
    run = replace(run, limits=replace(run.limits, budget_usd=1.0), warned=True)
    # $1 an hour: after 59 minutes and with a drain of two minutes ahead the dollar is spent.
    observation = seen(expected_drain_s=120)
    assert isinstance(choose(run, OFFERS, observation, at(57 * 60)), Wait)
    action = choose(run, OFFERS, observation, at(59 * 60))
    assert isinstance(action, Drain)
    assert action.outcome.code == "budget"


def test_four_fifths_of_the_budget_are_told_once() -> None:
    run = run_of(*TRAINING)
    run = replace(run, limits=replace(run.limits, budget_usd=1.0))
    assert isinstance(choose(run, OFFERS, PRESENT, at(47 * 60)), Wait)
    assert isinstance(choose(run, OFFERS, PRESENT, at(49 * 60)), Warn)
    told = replace(run, warned=True)
    assert isinstance(choose(told, OFFERS, PRESENT, at(49 * 60)), Wait)


def test_a_box_that_runs_and_never_lets_us_in_is_another_machines_turn() -> None:
    run = run_of(*BOOTED)
    assert isinstance(choose(run, OFFERS, PRESENT, at(290)), Prepare)
    action = choose(run, OFFERS, PRESENT, at(310))
    assert action == Resume(BOX, "ssh did not let us in within 300 s")
    inside = seen(reached=frozenset({BOX}))
    assert isinstance(choose(run, OFFERS, inside, at(310)), Prepare)


def test_the_search_of_a_run_that_has_trained_ends_too() -> None:
    nothing = (intended(SECOND), refused(SECOND), intended("demo-1-3", DEAR), refused("demo-1-3"))
    again = (intended("demo-1-4"), refused("demo-1-4"), intended("demo-1-5", DEAR),
             refused("demo-1-5"))  # fmt: skip
    run = run_of(*TRAINING, lost(), terminating(), gone(), *nothing, exhausted(130), *again)
    assert isinstance(choose(run, OFFERS, Seen(), at(5 * 3600)), LookAgain)
    action = choose(run, OFFERS, Seen(), at(7 * 3600))
    assert isinstance(action, Drain)
    assert action.outcome.code == "capacity"


def unknown_step(number: int = 1) -> Told:
    kind, data = sealed(60, number, final=True)
    return kind, {**data, "step": None, "max_steps": None}


def test_final_weights_of_unknown_step_after_a_crash_are_no_success() -> None:
    run = run_of(*TRAINING, sealed(10), exited(rc=1, why="crash"), unknown_step(), settled())
    assert isinstance(choose(run, OFFERS, PRESENT, at(100)), Start)


def test_final_weights_of_an_attempt_that_crashed_are_not_the_runs() -> None:
    crashed = (*TRAINING, sealed(10), mirrored(10), exited(rc=1, why="crash"),
               unknown_step(), mirrored(60, final=True), settled())  # fmt: skip
    late = ("checkpoint.sealed", {**sealed(60, 2, final=True)[1], "digest": "e" * 64})
    again = (attempt(2, resume=10), started(2), late, exited(2), settled(2), drain(), drained())
    run = run_of(*crashed, *again)
    assert run.outcome and (run.outcome.state, run.outcome.code) == ("FAILED", "integrity")


def test_a_box_that_never_says_that_it_settled_has_its_time() -> None:
    run = run_of(*TRAINING, sealed(10), exited(rc=1, why="crash"))
    assert isinstance(choose(run, OFFERS, PRESENT, at(300)), Wait)
    assert isinstance(choose(run, OFFERS, PRESENT, at(3000)), Start)


@pytest.mark.parametrize(
    ("moving_at", "watching_since", "expected"),
    [(None, None, Resume), (at(3000), None, Wait), (None, at(3000), Wait), (at(1), at(1), Resume)],
    ids=["nothing moves", "an upload moves", "nobody looked", "long ago"],
)
def test_a_start_is_late_only_when_nothing_moves(
    moving_at: Any, watching_since: Any, expected: type[Action]
) -> None:
    run = run_of(*BOOTED, prepared(), attempt(resume=10))
    observation = seen(
        busy=frozenset({"start:1"}), moving_at=moving_at, watching_since=watching_since
    )
    assert isinstance(choose(run, OFFERS, observation, at(3500)), expected)


@pytest.mark.parametrize(
    ("reason", "hours", "expected"),
    [
        ("missing", 23, Wait),
        ("failing", 23, Wait),
        ("missing", 25, Resume),
        ("full", 1, Resume),
        ("read-only", 1, Resume),
    ],
)
def test_a_pause_holds_a_start_up_for_a_day_when_nothing_can_be_read_here(
    reason: str, hours: float, expected: type[Action]
) -> None:
    paused: Told = ("mirror.paused", {"reason": reason, "message": "no"})
    run = run_of(*BOOTED, prepared(), attempt(resume=10), paused)
    observation = seen(busy=frozenset({"start:1"}))
    assert isinstance(choose(run, OFFERS, observation, at(hours * 3600)), expected)


def test_in_a_drain_no_start_is_late() -> None:
    run = run_of(
        *TRAINING, sealed(10), exited(rc=1, why="crash"), settled(), attempt(2, resume=10),
        drain("FAILED", "config"),
    )  # fmt: skip
    assert isinstance(choose(run, OFFERS, PRESENT, at(3500)), Wait)


@pytest.mark.parametrize(("moving_at", "expected"), [(None, Resume), (at(3000), Wait)])
def test_a_box_that_sends_bytes_answers(moving_at: Any, expected: type[Action]) -> None:
    """Its agent may be silent; what it holds is on its way here."""
    observation = seen(silent={BOX: at(1)}, moving_at=moving_at)
    run = run_of(*TRAINING, sealed(10))
    assert isinstance(choose(run, OFFERS, observation, at(3700)), expected)


@pytest.mark.parametrize(
    ("told", "observation", "seconds", "expected"),
    [
        ((), PRESENT, 500, Wait),
        ((), PRESENT, 700, Drained),
        ((), seen(busy=frozenset({"ack:"})), 700, Wait),
        ((("mirror.paused", {"reason": "missing", "message": "no"}),), PRESENT, 700, Wait),
    ],
    ids=["tried", "nobody can be told", "read here", "cannot be read now"],
)
def test_what_its_box_cannot_be_told_of_ends_the_drain_once_it_was_read(
    told: tuple[Told, ...], observation: Seen, seconds: float, expected: type[Action]
) -> None:
    run = run_of(*ENDED, mirrored(60), mirrored(60, final=True), drain(), *told)
    assert isinstance(choose(run, OFFERS, observation, at(seconds)), expected)


def test_a_drain_that_stands_still_ends() -> None:
    run = run_of(*ENDED, drain())
    assert isinstance(choose(run, OFFERS, PRESENT, at(7000)), Wait)
    ended = Drained(("checkpoint-60", "final"), "nothing moved for 2h")
    assert choose(run, OFFERS, PRESENT, at(8000)) == ended
    moving = seen(moving_at=at(7900))
    assert isinstance(choose(run, OFFERS, moving, at(8000)), Wait)


def test_crashes_without_a_step_gained_count_double() -> None:
    once = (*TRAINING, sealed(10), exited(rc=1, why="crash"), settled())
    assert crashes_spent(run_of(*once)) == 1
    twice = (*once, attempt(2, resume=10), started(2), exited(2, rc=1, why="crash"), settled(2))
    assert crashes_spent(run_of(*twice)) == 3


def test_a_host_loss_spends_no_crash() -> None:
    assert crashes_spent(run_of(*TRAINING, lost())) == 0


def test_the_source_is_the_highest_step_that_can_be_reached() -> None:
    run = run_of(*TRAINING, sealed(10), mirrored(10), sealed(30))
    on_box, elsewhere = newest_source(run, BOX), newest_source(run, SECOND)
    assert on_box and on_box.step == 30
    assert elsewhere and elsewhere.step == 10


@given(
    kinds=st.lists(
        st.sampled_from(
            [*TRAINING, sealed(10), mirrored(10), exited(rc=1, why="crash"), settled(), lost(),
             terminating(), gone(), TEARDOWN, drain(), drained(), FINISHED, refused(),
             restarted(), reappeared(), exhausted(50)]
        ),
        max_size=14,
    ),
    presence=st.sampled_from(["present", "broken", "gone", "unknown", "restarted", "wiped"]),
    later_s=st.floats(0, 1e6),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_decide_always_answers_and_never_leaves_a_terminal_state(
    kinds: list[Told], presence: Any, later_s: float
) -> None:
    histories = [planned(), *kinds]
    try:
        run = run_of(*histories[1:])
    except IndexError:
        return
    action = choose(run, OFFERS, Seen(presence={BOX: presence}), at(later_s))
    assert not run.terminal or isinstance(action, Wait)
