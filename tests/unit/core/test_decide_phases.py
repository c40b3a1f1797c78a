"""`decide` where one phase stops and before the next begins."""

from __future__ import annotations

from dataclasses import replace
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
    OFFERS,
    TRAINING,
    Told,
    acked,
    at,
    attempt,
    begun,
    created,
    drain,
    exited,
    gone,
    intended,
    lost,
    mirrored,
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
    Advance,
    AskApproval,
    Begin,
    Create,
    Deadlines,
    Drain,
    Extend,
    Halt,
    Prepare,
    Reached,
    Retire,
    Seen,
    Start,
    Stop,
    Terminate,
    Wait,
)
from orchestrator.core.decide import decide
from orchestrator.core.fold import fold_all
from orchestrator.core.gate import Decision, GateVerdict, Reason
from orchestrator.core.health.judge import Finding
from orchestrator.core.health.rule import Evidence, Verdict
from orchestrator.core.holdings import crashes_spent, host_losses, missing_here, newest_source
from orchestrator.core.keep import Keep
from orchestrator.core.phase_of import serial_of
from orchestrator.core.phases import choose_start, phase_usd, prunable_of, success_of
from orchestrator.core.plan import Stage, StartPlan
from orchestrator.core.run import Event, Outcome, Run, Source

SECOND = "demo-1-2"
FROM_WARM = StartPlan("main", "latest", "resume", "gpujob_start/main")
WARM = Stage("main", OFFERS, gated=True, stop_after_steps=20, hold_s=600.0)
FULL = Stage("full", OFFERS, start=FROM_WARM)
STAGES = (WARM, FULL)
PRESENT = Seen(presence={BOX: "present"}, agent_alive=True)


def said(verdict: GateVerdict, until: int | None = None, key: str = "") -> Decision:
    worst = Verdict.PASS if verdict is GateVerdict.GO else Verdict.FAIL
    return Decision(verdict, (Reason("loss_drop", worst, "words"),), until, key)


GO, NO_GO = said(GateVerdict.GO), said(GateVerdict.NO_GO)
OPEN, ASKS = said(GateVerdict.INCONCLUSIVE), said(GateVerdict.WAITING)


def flag(action: Any, rule: str = "M5") -> Finding:
    evidence = Evidence("a NaN at step 3")
    return Finding(rule, (), "nan", Verdict.FAIL, action, evidence, "Lower the learning rate.")


def seen(**changes: Any) -> Seen:
    return replace(PRESENT, **changes)


def stopped(why: str = "steps", step: int | None = 20, number: int = 1) -> Told:
    return "attempt.stopping", {"attempt": number, "why": why, "step": step}


def held(why: str = "gate", *rules: str) -> Told:
    return "phase.held", {"phase": "main", "why": why, "reason": "because", "rules": list(rules)}


def answer(yes: bool, phase: str = "main") -> Told:
    return "requested.approve", {"phase": phase, "yes": yes, "by": "me"}


def extended(step: int) -> Told:
    return "phase.extended", {"phase": "main", "until_step": step}


ENDED: Told = ("phase.ended", {"phase": "main", "verdict": "GO"})
REACHED: Told = ("phase.reached", {"phase": "main", "step": 20})
UNTIL = begun(until_step=20)
ON = (UNTIL, *TRAINING)
SAVED = (*ON, sealed(10), sealed(20))
HOME = (mirrored(10), mirrored(20), acked(10), acked(20))
STOPPED = (*SAVED, stopped(), exited(rc=143, why="stopped"), settled(), *HOME)
NEXT = begun("full", 1, start={"name": "checkpoint-20", "step": 20, "digest": DIGEST[20]},
             how="resume", instance=BOX)  # fmt: skip
SOURCE = Source("checkpoint-20", 20, DIGEST[20])

CASES: dict[str, tuple[tuple[Told, ...], Seen, Action | type[Action]]] = {
    "a step before the end is nothing": (ON, seen(step=19), Wait),
    "the step is told, and a save waited for": (ON, seen(step=20), Reached(20)),
    "the save after the step": ((*ON, REACHED), seen(step=25), Wait),
    "a checkpoint at the step stops the trainer": (SAVED, seen(step=22), Halt(1, "steps", 20)),
    "also when no step was ever told": (SAVED, PRESENT, Halt(1, "steps", 20)),
    "an earlier one does not": ((*ON, sealed(10)), PRESENT, Wait),
    "what is on record is done": ((*SAVED, stopped()), PRESENT, Stop(1, "TERM")),
    "it is not stopped twice at once": (
        (*SAVED, stopped()),
        seen(busy=frozenset({"stop:1:TERM"})),
        Wait,
    ),
    "what it left is sealed first": (
        (*SAVED, stopped(), exited(rc=143, why="stopped")),
        PRESENT,
        Wait,
    ),
    "what is sealed comes home first": (
        (*SAVED, stopped(), exited(rc=143, why="stopped"), settled(), mirrored(20)),
        seen(gate=GO),
        Wait,
    ),
    "and is looked at before its box is told": (
        (*SAVED, stopped(), exited(rc=143, why="stopped"), settled(), mirrored(10), mirrored(20)),
        seen(gate=GO),
        Wait,
    ),
    "nothing goes on before it was judged": (STOPPED, PRESENT, Wait),
    "a verdict on something else is none": (
        STOPPED,
        seen(gate=said(GateVerdict.GO, key="another")),
        Wait,
    ),
    "GO ends the phase": (STOPPED, seen(gate=GO), Advance("GO")),
    "a GO while it still trains changes nothing": (ON, seen(step=3, gate=GO), Wait),
    "NO-GO ends the run": (STOPPED, seen(gate=NO_GO), Drain),
    "an early NO-GO does not wait for the end": (ON, seen(step=3, gate=NO_GO), Drain),
    "an old NO-GO is none": (ON, seen(gate=said(GateVerdict.NO_GO, key="another")), Wait),
    "what cannot be told goes on a bit": (
        STOPPED,
        seen(gate=said(GateVerdict.INCONCLUSIVE, 40)),
        Extend(40),
    ),
    "as far as it may": (
        STOPPED,
        seen(gate=said(GateVerdict.INCONCLUSIVE, 20)),
        AskApproval,
    ),
    "after that it starts from its newest": (
        (*STOPPED, extended(40)),
        seen(gate=ASKS),
        Start(BOX, SOURCE),
    ),
    "what nobody can tell is asked": (STOPPED, seen(gate=OPEN), AskApproval),
    "what wants a person is asked": (STOPPED, seen(gate=ASKS), AskApproval),
    "it is asked once": ((*STOPPED, held()), seen(gate=ASKS), Wait),
    "a yes goes on": ((*STOPPED, held(), answer(True)), seen(gate=GO), Advance("GO")),
    "a no ends the run": ((*STOPPED, held(), answer(False)), seen(gate=ASKS), Drain),
    "a phase that has ended is followed by the next, on the same box": (
        (*STOPPED, ENDED),
        PRESENT,
        Begin(1, SOURCE, BOX),
    ),
    "the box is prepared anew": ((*STOPPED, ENDED, NEXT), PRESENT, Prepare(BOX)),
    "and trains from what was handed over": (
        (*STOPPED, ENDED, NEXT, prepared()),
        PRESENT,
        Start(BOX, SOURCE),
    ),
    "a box that is not kept is ended": (
        (*STOPPED, ENDED, begun("full", 1)),
        PRESENT,
        Terminate(BOX),
    ),
    "and proven gone before another is rented": (
        (*STOPPED, ENDED, begun("full", 1), terminating()),
        seen(busy=frozenset({f"terminate:{BOX}"})),
        Wait,
    ),
    "then another is rented": (
        (*STOPPED, ENDED, begun("full", 1), terminating(), gone()),
        PRESENT,
        Create(CHEAP),
    ),
    "a red flag that stops ends the run": (ON, seen(flags=(flag("stop"),)), Drain),
    "one that warns does not": (ON, seen(flags=(flag("warn"),)), Wait),
    "one that asks is asked": (ON, seen(flags=(flag("ask"),)), AskApproval),
    "the trainer goes on to its next save": ((*ON, held("flag", "M5")), PRESENT, Wait),
    "and is stopped there": ((*ON, held("flag", "M5"), sealed(10)), PRESENT, Halt(1, "flag")),
    "a save from before does not count": ((*ON, sealed(10), held("flag", "M5")), PRESENT, Wait),
    "then a person is waited for": (
        (
            *ON,
            held("flag", "M5"),
            sealed(10),
            stopped("flag", None),
            exited(rc=143, why="stopped"),
            settled(),
            mirrored(10),
            acked(10),
        ),
        seen(flags=(flag("ask"),)),
        Wait,
    ),
    "whose yes goes on from that save": (
        (
            *ON,
            held("flag", "M5"),
            sealed(10),
            stopped("flag", None),
            exited(rc=143, why="stopped"),
            settled(),
            mirrored(10),
            acked(10),
            answer(True),
        ),
        seen(flags=(flag("ask"),)),
        Start(BOX, Source("checkpoint-10", 10, DIGEST[10])),
    ),
    "a checkpoint that a lost box had brought home is enough": (
        (*SAVED, *HOME, lost(), terminating(), gone()),
        seen(gate=GO),
        Advance("GO"),
    ),
    "without one it is resumed elsewhere": (
        (*ON, sealed(10), mirrored(10), lost(), terminating(), gone()),
        PRESENT,
        Create(CHEAP),
    ),
    "a trainer that was stopped and left nothing ends the run": (
        (*ON, stopped(), exited(rc=143, why="stopped"), settled()),
        PRESENT,
        Drain,
    ),
    "what was begun is not what is planned: it begins anew": (
        (begun(key="another"), *BOOTED, prepared()),
        PRESENT,
        Begin(0, None, BOX),
    ),
}


@pytest.mark.parametrize(("told", "looked", "expected"), CASES.values(), ids=CASES)
def test_decide(told: tuple[Told, ...], looked: Seen, expected: Action | type[Action]) -> None:
    run = run_of(*told)
    action = decide(run, STAGES, looked, at(100), Deadlines())
    if isinstance(expected, type):
        assert isinstance(action, expected), action
    else:
        assert action == expected


@pytest.mark.parametrize(
    ("told", "looked", "code"),
    [
        (STOPPED, seen(gate=NO_GO), "gate"),
        (ON, seen(flags=(flag("stop"),)), "red_flag"),
        ((*STOPPED, held(), answer(False)), seen(gate=ASKS), "asked"),
        ((*ON, stopped(), exited(rc=143, why="stopped"), settled()), PRESENT, "incomplete"),
    ],
    ids=["gate", "flag", "person", "nothing saved"],
)
def test_how_it_ends(told: tuple[Told, ...], looked: Seen, code: str) -> None:
    action = decide(run_of(*told), STAGES, looked, at(100), Deadlines())
    assert isinstance(action, Drain) and action.outcome.code == code
    assert action.outcome.state == ("CANCELLED" if code == "asked" else "FAILED")


def test_a_run_begins_with_its_first_phase() -> None:
    nothing = fold_all("demo-1", [Event("demo-1", 1, at(0), *_planned())])
    assert decide(nothing, STAGES, Seen(), at(1), Deadlines()) == Begin(0)


def test_a_run_of_before_phases_goes_on_as_it_was() -> None:
    told = [_planned_told(), *TRAINING, sealed(10)]
    events = [Event("demo-1", n, at(n), kind, 1, data) for n, (kind, data) in enumerate(told, 1)]
    run = fold_all("demo-1", events)
    only = (Stage("main", OFFERS),)
    assert decide(run, only, PRESENT, at(20), Deadlines()) == Begin(0)
    run = fold_all("demo-1", [*events, Event("demo-1", 20, at(20), *_begun())])
    assert run.instance and run.instance.prepared
    assert run.attempt and run.attempt.live
    assert isinstance(decide(run, only, PRESENT, at(21), Deadlines()), Wait)


def _planned_told() -> Told:
    kind, _, data = _planned()
    return kind, data


def _begun() -> tuple[str, int, dict[str, Any]]:
    kind, data = begun()
    return kind, 1, data


def _planned() -> tuple[str, int, dict[str, Any]]:
    limits = {"host_loss": 2, "crash": 2}
    return "planned", 1, {"name": "demo", "folder": "/jobs", "mirror": "/mirror", **limits}


def test_a_trainer_that_saves_when_it_is_told_to_is_told_at_its_step() -> None:
    stages = (replace(WARM, saves_on_stop=True), FULL)
    action = decide(run_of(*ON), stages, seen(step=20), at(100), Deadlines())
    assert action == Halt(1, "steps", 20)
    patient = Deadlines(stop_grace_s=10, save_grace_s=1000)
    run = run_of(*ON, stopped())
    assert decide(run, stages, seen(step=20), at(500), patient) == Stop(1, "TERM")
    assert decide(run, stages, seen(step=20), at(2000), patient) == Stop(1, "KILL")
    assert decide(run, STAGES, seen(step=20), at(500), patient) == Stop(1, "KILL")


def test_a_save_that_never_comes_is_not_waited_for_for_ever() -> None:
    run, hour = run_of(*ON, REACHED), 3600
    assert isinstance(decide(run, STAGES, seen(step=30), at(3 * hour), Deadlines()), Wait)
    late = decide(run, STAGES, seen(step=30), at(5 * hour), Deadlines())
    assert late == Halt(1, "steps", 20)


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        (FULL, BOX),
        (replace(FULL, offers=(DEAR,)), None),
        (replace(FULL, disk_gb=100), None),
        (replace(FULL, rental=replace(FULL.rental, image="other")), None),
    ],
    ids=["the same", "another offer", "a larger disk", "another image"],
)
def test_a_box_is_kept_when_the_next_phase_might_have_rented_it(
    after: Stage, kept: str | None
) -> None:
    run = run_of(*STOPPED, ENDED)
    assert decide(run, (WARM, after), PRESENT, at(100), Deadlines()) == Begin(1, SOURCE, kept)


def test_a_box_waits_for_a_person_for_as_long_as_it_may_bill() -> None:
    run = run_of(*STOPPED, held())
    asked_at = run.phase and run.phase.waiting and run.phase.waiting.at
    assert asked_at and str(run.state) == "WAITING"
    early, late = at(500), at(700)
    assert isinstance(decide(run, STAGES, seen(gate=ASKS), early, Deadlines()), Wait)
    action = decide(run, STAGES, seen(gate=ASKS), late, Deadlines())
    assert isinstance(action, Retire) and action.instance == BOX
    given = run_of(*STOPPED, held(), ("instance.retired", {"instance": BOX, "reason": "x"}))
    assert decide(given, STAGES, seen(gate=ASKS), late, Deadlines()) == Terminate(BOX)
    over = run_of(*STOPPED, held(), terminating(), gone())
    week = 7 * 24 * 3600
    assert isinstance(decide(over, STAGES, seen(gate=ASKS), at(week - 100), Deadlines()), Wait)
    action = decide(over, STAGES, seen(gate=ASKS), at(week + 100), Deadlines())
    assert isinstance(action, Drain) and action.outcome.state == "CANCELLED"


def test_a_yes_to_nothing_or_to_another_phase_is_none() -> None:
    for told in ((*STOPPED, answer(True)), (*STOPPED, held(), answer(True, "full"))):
        phase = run_of(*told).phase
        assert phase and phase.approved is None


def test_what_does_not_come_home_ends_the_run_and_not_in_silence() -> None:
    run = run_of(*SAVED, stopped(), exited(rc=143, why="stopped"), settled(), mirrored(10))
    late = at(3 * 3600)
    action = decide(run, STAGES, seen(gate=GO, moving_at=at(50)), late, Deadlines())
    assert isinstance(action, Drain)
    assert action.outcome.code == "integrity" and "checkpoint-20" in action.outcome.reason
    moving = seen(gate=GO, moving_at=at(3 * 3600 - 60))
    assert isinstance(decide(run, STAGES, moving, late, Deadlines()), Wait)


def test_a_hand_over_of_what_is_not_there_ends_the_run() -> None:
    best = (WARM, replace(FULL, start=replace(FROM_WARM, checkpoint="best")))
    action = decide(run_of(*STOPPED, ENDED), best, PRESENT, at(100), Deadlines())
    assert isinstance(action, Drain) and "main left no checkpoint `best`" in action.outcome.reason


def test_the_last_phase_with_a_gate_succeeds_by_it() -> None:
    alone = (replace(WARM, stop_after_steps=None),)
    done = (*TRAINING, sealed(60), exited(), sealed(60, final=True), settled(), mirrored(60),
            mirrored(60, final=True), acked(60), acked(60, final=True))  # fmt: skip
    action = decide(run_of(*done), alone, seen(gate=GO), at(100), Deadlines())
    assert action == Drain(Outcome("SUCCEEDED", "trained to the end", "done"))
    assert isinstance(decide(run_of(*done), alone, PRESENT, at(100), Deadlines()), Wait)


def in_second(*told: Told) -> Run:
    return run_of(*STOPPED, ENDED, NEXT, prepared(), attempt(2, resume=20), started(2), *told)


def test_recoveries_are_counted_for_each_phase() -> None:
    crash = exited(2, rc=1, why="crash")
    assert crashes_spent(in_second(crash, settled(2))) == 2
    assert crashes_spent(run_of(*SAVED, stopped(), exited(rc=143, why="stopped"))) == 0
    before = (*ON, sealed(10), mirrored(10), lost(), terminating(), gone(), intended(SECOND))
    again = (created(SECOND), running(SECOND), prepared(SECOND), attempt(2, SECOND, 10))
    run = run_of(*before, *again, started(2))
    assert host_losses(run) == 1
    later = run_of(*before, *again, started(2), begun("full", 1, instance=SECOND))
    assert host_losses(later) == 0
    assert later.limits.host_loss == 2


def test_a_phase_resumes_from_its_own_and_before_that_from_what_was_handed_over() -> None:
    assert newest_source(in_second(), BOX) == SOURCE
    own = newest_source(in_second(sealed(30, 2)), BOX)
    assert own and own.name == "checkpoint-30"
    scratch = run_of(*STOPPED, ENDED, begun("full", 1, instance=BOX), prepared())
    assert newest_source(scratch, BOX) is None


def test_a_lost_box_of_a_later_phase_costs_nothing_of_an_earlier_one() -> None:
    run = in_second(lost())
    first, second = run.attempts
    assert (first.lost, second.lost) == (False, True)
    untouched = run_of(*STOPPED, ENDED, NEXT, lost())
    assert [each.lost for each in untouched.attempts] == [False]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("latest", "checkpoint-20"), ("checkpoint-10", "checkpoint-10"), ("final", None)],
)
def test_what_is_handed_over(wanted: str, name: str | None) -> None:
    start = choose_start(in_second(sealed(30, 2)), replace(FROM_WARM, checkpoint=wanted))
    assert (start.name if start else None) == name


def test_the_best_by_what_was_measured_is_handed_over() -> None:
    better = ("checkpoint.measured", {"digest": DIGEST[10], "metrics": {"eval_loss": 1.0}})
    worse = ("checkpoint.measured", {"digest": DIGEST[20], "metrics": {"eval_loss": 2.0}})
    start = choose_start(
        run_of(*STOPPED, better, worse, ENDED), replace(FROM_WARM, checkpoint="best")
    )
    assert start and start.name == "checkpoint-10"


def test_what_a_later_phase_starts_from_is_not_let_go() -> None:
    keep = Keep(last=1)
    run = run_of(*STOPPED)
    assert [seal.name for seal in prunable_of(run, 0, keep, STAGES)] == ["checkpoint-10"]
    wanted = (WARM, replace(FULL, start=replace(FROM_WARM, checkpoint="checkpoint-10")))
    assert prunable_of(run, 0, keep, wanted) == ()
    later = in_second(sealed(30, 2), mirrored(30), acked(30))
    assert [seal.name for seal in prunable_of(later, 0, keep, STAGES)] == ["checkpoint-10"]
    assert prunable_of(later, 1, keep, STAGES) == ()


def test_a_phase_pays_from_its_beginning() -> None:
    run = run_of(*STOPPED, ENDED, NEXT, every_s=60)
    assert run.phase
    an_hour_on = run.phase.began_at + (at(3600) - at(0))
    assert phase_usd(run, an_hour_on) == pytest.approx(1.0)
    assert run.spent_usd(an_hour_on) > 1.2


def test_a_drain_that_lost_the_checkpoint_it_was_for_has_failed() -> None:
    stages_end = (*SAVED, stopped(), exited(rc=143, why="stopped"), settled(), drain())
    gone_with_it = ("drain.ended", {"complete": False, "missing": ["checkpoint-20"]})
    assert run_of(*stages_end, gone_with_it).reason == "the last checkpoint did not arrive here"
    here = run_of(*stages_end, mirrored(20), ("drain.ended", {"complete": True, "missing": []}))
    assert here.outcome and here.outcome.state == "SUCCEEDED"


ANY: list[Told] = [
    *TRAINING, *SAVED[-2:], *HOME, sealed(60, final=True), mirrored(60, final=True), stopped(),
    REACHED, stopped("flag", None), exited(rc=143, why="stopped"), exited(),
    exited(rc=1, why="crash"),
    settled(), held(), held("flag", "M5"), answer(True), answer(False), extended(40), ENDED, NEXT,
    begun("full", 1), lost(), terminating(), gone(), attempt(2, resume=20), started(2),
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(ANY), max_size=24),
    gate=st.sampled_from([None, GO, NO_GO, OPEN, ASKS, said(GateVerdict.GO, key="another")]),
    step=st.sampled_from([None, 3, 25]),
    action=st.sampled_from(["warn", "ask", "stop"]),
    presence=st.sampled_from(["present", "gone", "unknown"]),
    later_s=st.floats(30, 1e6),
)
def test_whatever_happened_nothing_goes_on_without_a_go(
    kinds: list[Told],
    gate: Decision | None,
    step: int | None,
    action: Any,
    presence: Any,
    later_s: float,
) -> None:
    run = run_of(*ON, *kinds)
    looked = Seen({BOX: presence}, True, gate=gate, step=step, flags=(flag(action),))
    chosen = decide(run, STAGES, looked, at(later_s), Deadlines())
    phase = run.phase
    assert phase
    if isinstance(chosen, Advance) and phase.index == 0:
        assert gate is not None and (gate.verdict, gate.key) == (GateVerdict.GO, phase.key)
        assert run.attempt and not run.attempt.live
    if isinstance(chosen, Begin) and chosen.index > phase.index:
        assert phase.ended
    if isinstance(chosen, Create):
        assert run.still_billing == ()
    if isinstance(chosen, Drain) and chosen.outcome.state == "SUCCEEDED":
        assert phase.index == 1 and run.attempt and not run.attempt.live
    if isinstance(chosen, Halt):
        assert run.attempt and run.attempt.live and run.attempt.number == chosen.attempt


CUT = (*ON, sealed(10), stopped(), exited(rc=1, why="stopped"), settled())


def test_a_crash_at_the_moment_of_the_stop_is_a_crash_of_its_budget() -> None:
    """Our own trainer saves when it is told to: one that did not has crashed, and goes on."""
    stages = (replace(WARM, saves_on_stop=True), FULL)
    again = decide(run_of(*CUT), stages, PRESENT, at(100), Deadlines())
    assert again == Start(BOX, Source("checkpoint-10", 10, DIGEST[10]))
    assert crashes_spent(run_of(*CUT)) == 1
    told = (*CUT, attempt(2, resume=10), started(2), stopped(number=2))
    worse = run_of(*told, exited(2, rc=1, why="stopped"), settled(2))
    action = decide(worse, stages, PRESENT, at(200), Deadlines())
    assert isinstance(action, Drain) and action.outcome.code == "incomplete"
    assert "3 crashes" in action.outcome.reason
    reached = run_of(*STOPPED, extended(40))
    assert crashes_spent(reached) == 0, "it did what it was stopped for"


@pytest.mark.parametrize(
    ("told", "code"),
    [((*STOPPED, held()), None), (STOPPED, None), ((*ON, sealed(10)), "host")],
    ids=["a person is waited for", "it is judged", "it trains"],
)
def test_a_box_that_is_lost_when_nobody_needs_it_ends_no_run(
    told: tuple[Told, ...], code: str | None
) -> None:
    none = begun(until_step=20, host_loss=0)
    run = run_of(none, *told[1:], lost(), terminating(), gone())
    action = decide(run, STAGES, seen(gate=ASKS), at(100), Deadlines())
    assert (action.outcome.code if isinstance(action, Drain) else None) == code


def test_a_box_that_was_never_answered_for_is_given_back_by_the_list() -> None:
    """Whatever S3 told late has ended the phase while the next box was asked for."""
    told = (*SAVED, *HOME, lost(), terminating(), gone(), intended(SECOND), ENDED)
    run = run_of(*told, begun("full", 1))
    assert run.find_instance(SECOND).retired
    asked = seen(busy=frozenset({f"create:{SECOND}"}))
    assert isinstance(decide(run, STAGES, asked, at(100), Deadlines()), Wait)
    missing = Seen(presence={SECOND: "gone"})
    assert decide(run, STAGES, missing, at(100), Deadlines()) == Absent(SECOND)
    there = run_of(*told, begun("full", 1), created(SECOND))
    assert decide(there, STAGES, PRESENT, at(100), Deadlines()) == Terminate(SECOND)


def test_a_verdict_that_was_acted_on_is_not_taken_back() -> None:
    action = decide(run_of(*STOPPED, ENDED), STAGES, seen(gate=NO_GO), at(100), Deadlines())
    assert action == Begin(1, SOURCE, BOX)


def test_what_is_to_be_in_s3_is_pushed_before_its_box_may_go() -> None:
    other = (WARM, replace(FULL, offers=(DEAR,)))

    def chosen(run: Run, now_s: float, stages: tuple[Stage, ...] = other, gate: Any = GO) -> Action:
        return decide(run, stages, seen(gate=gate), at(now_s), Deadlines())

    run = replace(run_of(*STOPPED), also="s3://bucket/x")
    assert isinstance(chosen(run, 100), Wait)
    assert chosen(run, 100, STAGES) == Advance("GO"), "a box that is kept goes on pushing"
    still = replace(run, pushed={DIGEST[10]: "a"}, pushed_at=at(90))
    assert isinstance(chosen(still, 100), Wait)
    assert chosen(still, 800) == Advance("GO"), "all of it is here: that is not worth a night"
    assert chosen(replace(still, pushed={DIGEST[10]: "a", DIGEST[20]: "b"}), 100) == Advance("GO")
    asked = replace(run_of(*STOPPED, held()), also="s3://bucket/x", pushed_at=at(600))
    assert isinstance(chosen(asked, 700, gate=ASKS), Wait)
    assert isinstance(chosen(asked, 1300, gate=ASKS), Retire)
    away = replace(run_of(*STOPPED, held(), terminating(), gone()), also="s3://bucket/x")
    assert chosen(away, 100) == Advance("GO")


def test_an_answer_that_was_given_in_time_is_not_late_for_want_of_a_controller() -> None:
    """The machine slept from before the answer until a week was over."""
    week = at(8 * 24 * 3600)
    yes = run_of(*STOPPED, held(), answer(True))
    assert decide(yes, STAGES, seen(gate=GO), week, Deadlines()) == Advance("GO")
    action = decide(run_of(*STOPPED, held()), STAGES, seen(gate=ASKS), week, Deadlines())
    assert isinstance(action, Drain) and "nobody answered" in action.outcome.reason


def test_a_save_that_cannot_be_had_is_none() -> None:
    """Its box gave other bytes than it had sealed, each time: what was stopped for is not there."""
    bad = {"instance": BOX, "name": "checkpoint-20", "generation": 1, "reason": "bytes"}
    told = (*SAVED, stopped(), exited(rc=143, why="stopped"), settled(), mirrored(10), acked(10))
    run = run_of(*told, ("checkpoint.failed", bad))
    action = decide(run, STAGES, PRESENT, at(100), Deadlines())
    assert isinstance(action, Drain) and action.outcome.code == "incomplete"
    ours = (replace(WARM, saves_on_stop=True), FULL)
    assert decide(run, ours, PRESENT, at(100), Deadlines()) == Start(
        BOX, Source("checkpoint-10", 10, DIGEST[10])
    )
    assert crashes_spent(run) == 1


def test_what_is_sealed_after_the_verdict_is_still_of_its_phase() -> None:
    """Its box was late: it comes home before the next phase ends, and nothing resumes from it."""
    late = in_second(sealed(30))
    assert [seal.name for seal in missing_here(late)] == ["checkpoint-30"]
    assert newest_source(late, BOX) == SOURCE
    assert serial_of(late, late.seals[-1]) == 0
    assert not success_of(late, at(100), Deadlines())
