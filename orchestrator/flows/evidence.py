"""What is known of a phase while it runs: its last step, what its gate says, what health rules ask.

All of it comes from what boxes told, and from the checkpoints that are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.core.gate import Decision, Evidence, judge
from orchestrator.core.health.judge import Finding, fired
from orchestrator.core.health.rule import Verdict
from orchestrator.core.health.watch import Rung
from orchestrator.core.phase_of import of_phase
from orchestrator.core.phases import phase_usd, success_of
from orchestrator.core.plan import PhasePlan
from orchestrator.core.run import Attempt, Run
from orchestrator.core.signatures.samples import Sample, merge
from orchestrator.core.signatures.structured import trainer_state
from orchestrator.flows.curves import KEPT, Curve, Read
from orchestrator.flows.hold import Hold
from orchestrator.flows.lookbook import Lookbook, Page
from orchestrator.flows.rungs import attempts_of, rung_before, rung_of
from orchestrator.flows.watching import Known, evaluations_of, findings_of, samples_of
from orchestrator.flows.worth import state_bytes

JUDGE_S = 5.0
LAST_WORDS_S = 3.0
PATIENCE = 1000  # times what it took: two hundred runs together leave most of a core alone
LISTEN_S = 1.0


@dataclass(frozen=True)
class Heard:
    """`step` is the last one heard of; `gate` is None without a gate, or while too little was
    read; `flags` are the findings that ask for something, the gravest first."""

    step: int | None = None
    gate: Decision | None = None
    flags: tuple[Finding, ...] = ()


def gather(run: Run, plan: PhasePlan, known: Known, *, ended: bool, now: datetime) -> Heard:
    """What is known of the run's phase, judged. `ended`: no step comes by itself any more."""
    phase, samples = run.phase, samples_of(run, known)
    findings = findings_of(run, plan, known, samples, ended=ended, now=now)
    evidence = Evidence(
        samples=samples,
        findings=tuple(_for_gate(each) for each in findings),
        start_step=phase.start_step if phase else 0,
        ended=ended,
        evaluations=known.evaluations or {},
        spent_usd=phase_usd(run, now),
        approved=phase.approved if phase else None,
        key=plan.key,
    )
    gate = judge(plan.gate, evidence) if plan.gate else None
    return Heard(_last_step(samples), gate, fired(findings))


def _for_gate(found: Finding) -> Finding:
    """A trainer that is restarted has not failed its phase."""
    is_mended = found.action == "restart" and found.verdict is Verdict.FAIL
    return replace(found, verdict=Verdict.WARN) if is_mended else found


class Witness:
    """Reads on where it stopped, and judges anew when there is something new to judge."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._curves: dict[int, Curve] = {}
        self._books: dict[str, Lookbook] = {}
        self._rungs: dict[tuple[int, int], Rung | None] = {}
        self._checkpoint: tuple[str, tuple[Sample, ...]] = ("", ())
        self._judged: tuple[object, ...] = ()
        self._not_before = 0.0
        self._listen_at = float("-inf")
        self._is_fresh = False
        self._heard = Heard()

    def look(self, run: Run, now: datetime) -> Heard:
        """Of a run that is ending nothing is asked any more. What a trainer told last may come a
        moment after its end: until then its gate is not judged."""
        if run.outcome or run.phase is None:
            return Heard()
        reads = [self._curve(run, each).read() for each in run.phase_attempts]
        heard = self._listen(run)
        self._is_fresh |= any(each.is_new for each in (*reads, *heard))
        clock = self._hold.world.clock
        ended = bool(success_of(run, now, self._hold.world.deadlines))
        is_early = ended and not _is_quiet(run, now)
        state = (run.seq, ended, is_early)
        is_due = self._is_fresh and clock.monotonic() >= self._not_before
        if state != self._judged or is_due:
            began_s = clock.monotonic()
            plan = self._hold.phase(run)
            told = gather(run, plan, self._known(run, plan), ended=ended, now=now)
            is_behind = any(each.is_behind for each in reads)
            is_deaf = any(each.is_behind for each in heard)  # of a log it may be so for long
            is_blind = is_behind or is_deaf or is_early
            self._heard = replace(told, gate=None if is_blind else told.gate)
            self._judged, self._is_fresh = () if is_behind else state, is_deaf
            took_s = clock.monotonic() - began_s
            self._not_before = began_s + max(JUDGE_S, PATIENCE * took_s)
        return replace(self._heard, step=self._step(run))

    def _step(self, run: Run) -> int | None:
        """Of the newest attempt alone: what one before it reached may have to be made again."""
        attempt = run.attempt
        if attempt is None:
            return None
        told = [self._curves[attempt.number].last_step, self._page(attempt).last_step]
        sealed = [s.step for s in run.seals if s.attempt == attempt.number]
        return max((each for each in (*sealed, *told) if each is not None), default=None)

    def _curve(self, run: Run, attempt: Attempt) -> Curve:
        """What the attempt told lies between its beginning and that of the next on its box."""
        curve = self._curves.get(attempt.number)
        if curve is None:
            path = self._hold.folder / attempt.instance / "metrics.jsonl"
            curve = self._curves[attempt.number] = Curve(path, attempt)
        later = [
            each.metrics_from
            for each in run.attempts
            if each.instance == attempt.instance and each.number > attempt.number
        ]
        curve.ends_at = min(later, default=None)
        return curve

    def _listen(self, run: Run) -> list[Read]:
        """Read on in what the boxes of the run saw, now and then: of one that is gone, too, for an
        evaluation of an earlier phase is compared with."""
        clock = self._hold.world.clock
        if clock.monotonic() - self._listen_at < LISTEN_S:
            return [Read(False, each.is_behind) for each in self._books.values()]
        self._listen_at = clock.monotonic()
        reads = []
        newest = {each.instance: each for each in run.attempts}
        for instance, attempt in newest.items():
            book = self._books.get(instance) or self._open(instance)
            is_new = book.read(attempt.number, ended=not attempt.live)
            reads.append(Read(is_new, book.is_behind))
        return reads

    def _open(self, instance: str) -> Lookbook:
        folder = self._hold.folder / instance

        def keep(attempt: int, name: str, data: bytes) -> None:
            self._keep(folder / f"hang-{attempt}" / name, data)

        book = self._books[instance] = Lookbook(folder, keep)
        return book

    def _keep(self, path: Path, data: bytes) -> None:
        """A file of a dump, without the secrets that may stand in it."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(self._hold.redactor.data(data))

    def _page(self, attempt: Attempt) -> Page:
        book = self._books.get(attempt.instance)
        return book.page(attempt.number) if book else Page()

    def _known(self, run: Run, plan: PhasePlan) -> Known:
        attempts = {each.number: self._sources(each) for each in run.phase_attempts}
        files: dict[str, tuple[datetime, Mapping[str, Any]]] = {}
        for book in self._books.values():
            newer = {n: f for n, f in book.files.items() if n not in files or files[n][0] < f[0]}
            files |= newer
        return Known(
            attempts=attempts,
            checkpoint=self._of_checkpoint(run),
            page=self._page(run.attempt) if run.attempt else None,
            evaluations=evaluations_of(plan, {name: data for name, (_, data) in files.items()}),
            rung=self._rung(run),
        )

    def _rung(self, run: Run) -> Rung | None:
        """Of a phase that is over, so it is read once: for each attempt, which may be on another
        kind of GPU."""
        serial = rung_before(run, self._hold.plan)
        if serial is None or run.attempt is None:
            return None
        key = run.serial, run.attempt.number
        if key in self._rungs:
            return self._rungs[key]
        newest = attempts_of(run, serial)[-1]
        read = self._curve(run, newest).read()
        rung = rung_of(run, self._hold.plan, serial, merge(*self._sources(newest)))
        book = self._books.get(newest.instance)
        if not (read.is_behind or (book and book.is_behind)):
            self._rungs[key] = rung
        return rung

    def _sources(self, attempt: Attempt) -> tuple[tuple[Sample, ...], ...]:
        """From the best to the worst."""
        page = self._page(attempt)
        console = page.log.samples if page.log else ()
        sources = (self._curves[attempt.number].samples, page.told, console, page.reports)
        return tuple(tuple(each) for each in sources)

    def _of_checkpoint(self, run: Run) -> tuple[Sample, ...]:
        """What the newest checkpoint says of its own past."""
        here = [seal for seal in of_phase(run, run.serial).seals if seal.digest in run.mirrored]
        newest = max(here, key=lambda seal: seal.step or 0, default=None)
        if newest is None:
            return ()
        path = run.mirrored[newest.digest]
        if self._checkpoint[0] != path:
            data = state_bytes(Path(path) / "trainer_state.json")
            self._checkpoint = path, tuple(trainer_state(data)[-KEPT:]) if data else ()
        return self._checkpoint[1]


def _is_quiet(run: Run, now: datetime) -> bool:
    ended_at = run.attempt.ended_at if run.attempt else None
    return ended_at is None or now - ended_at >= timedelta(seconds=LAST_WORDS_S)


def _last_step(samples: tuple[Sample, ...]) -> int | None:
    return max((each.step for each in samples if each.step is not None), default=None)


__all__ = ["JUDGE_S", "KEPT", "Heard", "Known", "Witness", "gather"]
