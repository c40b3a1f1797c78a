"""GO or NO-GO after a phase: pure, the same for the same evidence, with its reasons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from orchestrator.core.health.evaluation import Question, compare
from orchestrator.core.health.falls import look
from orchestrator.core.health.judge import Finding
from orchestrator.core.health.rule import Verdict
from orchestrator.core.health.series import points
from orchestrator.core.settings import RUNG_KEYS
from orchestrator.core.signatures.numbers import look_for_nan
from orchestrator.core.signatures.samples import Sample


class GateVerdict(StrEnum):
    """WAITING: the phase goes on, or a person has not spoken. INCONCLUSIVE: its end is reached
    and nobody can say; it may be extended to `until_step`, else a person decides."""

    GO = "GO"
    NO_GO = "NO-GO"
    INCONCLUSIVE = "inconclusive"
    WAITING = "waiting"


@dataclass(frozen=True)
class LossDrop:
    percent: float
    within_steps: int
    extend_to: int | None = None


@dataclass(frozen=True)
class MetricGate:
    """The last value of `metric`, at or after `from_step`, is above or below a limit."""

    metric: str
    above: float | None = None
    below: float | None = None
    from_step: int | None = None


@dataclass(frozen=True)
class EvaluationGate:
    """A JSON file of metrics that the job writes, against another one of the same shape."""

    file: str
    metric: str
    baseline: str
    improve_percent: float = 0.0
    mode: Literal["min", "max"] | None = None
    confident: bool = False
    least_parse_rate: float | None = None


@dataclass(frozen=True)
class CostGate:
    usd: float


@dataclass(frozen=True)
class Gate:
    """The `gate:` of a phase; its JSON has the same keys (`core.codec`)."""

    loss_drop: LossDrop | None = None
    no_red_flags: bool = False
    require: tuple[str, ...] = ()
    metrics: tuple[MetricGate, ...] = ()
    evaluation: EvaluationGate | None = None
    cost: CostGate | None = None
    approve: bool = False


@dataclass(frozen=True)
class Evidence:
    """All that is known of the phase. `ended`: no step comes by itself any more. `evaluations`: the
    parsed files by their names. `approved`: None while nobody was heard."""

    samples: tuple[Sample, ...] = ()
    findings: tuple[Finding, ...] = ()
    start_step: int = 0
    ended: bool = False
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    spent_usd: float | None = None
    approved: bool | None = None
    key: str = ""


@dataclass(frozen=True)
class Reason:
    part: str
    verdict: Verdict
    words: str


@dataclass(frozen=True)
class Decision:
    """`key` is what the verdict holds for; with another one it has expired."""

    verdict: GateVerdict
    reasons: tuple[Reason, ...]
    until_step: int | None = None
    key: str = ""


def judge(gate: Gate, evidence: Evidence) -> Decision:
    """A part that fails decides at once; GO needs every part to pass. A rule that warns does not
    hold a gate up unless `require` names it, and what nobody can observe never passes: unless a
    person, who was asked at the end, said to go on."""
    reasons = tuple(_parts(gate, evidence))
    verdicts = {reason.verdict for reason in reasons}
    if Verdict.FAIL in verdicts:
        return Decision(GateVerdict.NO_GO, reasons, key=evidence.key)
    if verdicts <= {Verdict.PASS}:
        return _ask(gate, evidence, reasons)
    until = _until(gate, evidence)
    if not evidence.ended:
        return Decision(GateVerdict.WAITING, reasons, until, evidence.key)
    if evidence.approved:
        said = Reason("approve", Verdict.PASS, "a person said to go on")
        return Decision(GateVerdict.GO, (*reasons, said), key=evidence.key)
    return Decision(GateVerdict.INCONCLUSIVE, reasons, until, evidence.key)


def verdict_key(
    config: Mapping[str, Any],
    *,
    code: str,
    image: str,
    data: str,
    rung_keys: frozenset[str] = RUNG_KEYS,
) -> str:
    """What a verdict holds for, as SHA-256: configuration (but for `rung_keys`, wherever they
    stand), commit or digest of the code, image, and digest of the data."""
    told = [_without(config, rung_keys), code, image, data]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def is_expired(decision: Decision, key: str) -> bool:
    """Whether what would run now is not what was judged."""
    return decision.key != key


def _parts(gate: Gate, evidence: Evidence) -> Iterator[Reason]:
    yield from _numbers(evidence)
    if gate.loss_drop:
        yield _loss_drop(gate.loss_drop, evidence)
    if gate.no_red_flags:
        yield _no_red_flags(evidence)
    for name in gate.require:
        yield _required(name, evidence)
    for metric in gate.metrics:
        yield _metric(metric, evidence)
    if gate.evaluation:
        yield _evaluation(gate.evaluation, evidence)
    if gate.cost:
        yield _cost(gate.cost, evidence)
    yield from _phase_end(gate, evidence)


def _numbers(evidence: Evidence) -> Iterator[Reason]:
    """A NaN is NO-GO, whatever the gate asks for: nothing that follows it means anything."""
    found = look_for_nan(evidence.samples, ended=evidence.ended)
    if found:
        verdict = Verdict.FAIL if found.sure else Verdict.INCONCLUSIVE
        yield Reason("nan", verdict, f"step {found.sample.step}: {found.why}")


def _loss_drop(asked: LossDrop, evidence: Evidence) -> Reason:
    curve = points(evidence.samples)
    seen = look(
        curve,
        start=evidence.start_step,
        percent=asked.percent,
        within=asked.within_steps,
        extend=asked.extend_to,
        ended=evidence.ended,
    )
    if seen.good:
        return Reason("loss_drop", Verdict.PASS, seen.words)
    if seen.last and seen.drop is not None:
        return Reason("loss_drop", Verdict.FAIL, seen.words)
    if not curve and evidence.ended:
        return Reason("loss_drop", Verdict.UNOBSERVABLE, "the trainer never told a loss")
    return Reason("loss_drop", Verdict.INCONCLUSIVE, seen.words)


def _no_red_flags(evidence: Evidence) -> Reason:
    failed = [each for each in evidence.findings if each.verdict is Verdict.FAIL]
    if failed:
        words = "; ".join(f"{each.rule}: {each.evidence.words}" for each in failed[:5])
        return Reason("no_red_flags", Verdict.FAIL, words)
    blind = [each.rule for each in evidence.findings if each.verdict is Verdict.UNOBSERVABLE]
    words = f"none of {len(evidence.findings) - len(blind)} rules"
    if blind:
        words += f"; {', '.join(blind)} cannot be observed here"
    return Reason("no_red_flags", Verdict.PASS, words)


def _required(name: str, evidence: Evidence) -> Reason:
    """By a rule's id or by its flag: then all rules of the flag must pass."""
    part = f"require {name}"
    found = [f for f in evidence.findings if name in (f.rule, f.flag, *f.also)]
    if not found:
        return Reason(part, Verdict.UNOBSERVABLE, "no such rule was judged in this phase")
    order = (Verdict.FAIL, Verdict.UNOBSERVABLE, Verdict.INCONCLUSIVE, Verdict.WARN, Verdict.PASS)
    worst = min(found, key=lambda each: order.index(each.verdict))
    words = f"{worst.rule}: {worst.evidence.words}"
    if worst.verdict is not Verdict.WARN:
        return Reason(part, worst.verdict, words)
    return Reason(part, Verdict.FAIL if evidence.ended else Verdict.INCONCLUSIVE, words)


def _metric(asked: MetricGate, evidence: Evidence) -> Reason:
    part = f"metric {asked.metric}"
    told = [(each.step, each.get(asked.metric)) for each in evidence.samples]
    curve = [(s, v) for s, v in told if s is not None and v is not None]
    if not curve:
        return Reason(part, _unseen(evidence), f"{asked.metric} was never told in this phase")
    step, value = curve[-1]
    if asked.from_step is not None and step < asked.from_step:
        words = f"{value:.4g} at step {step}, judged from step {asked.from_step}"
        return Reason(part, Verdict.INCONCLUSIVE, words)
    good = (asked.above is None or value > asked.above) and (
        asked.below is None or value < asked.below
    )  # NaN is neither
    words = f"{value:.4g} at step {step}"
    if good:
        return Reason(part, Verdict.PASS, words)
    return Reason(part, Verdict.FAIL if evidence.ended else Verdict.INCONCLUSIVE, words)


def _evaluation(asked: EvaluationGate, evidence: Evidence) -> Reason:
    part = f"evaluation {asked.file}"
    for name in (asked.file, asked.baseline):
        if name not in evidence.evaluations:
            return Reason(part, _unseen(evidence), f"{name} is not there")
    question = Question(
        asked.metric,
        asked.improve_percent,
        asked.mode,
        asked.confident,
        asked.least_parse_rate,
    )
    files = evidence.evaluations
    verdict, found = compare(files[asked.file], files[asked.baseline], question)
    return Reason(part, verdict, found.words)


def _cost(asked: CostGate, evidence: Evidence) -> Reason:
    spent = evidence.spent_usd
    if spent is None:
        return Reason("cost", _unseen(evidence), "what was spent is not known")
    words = f"${spent:.2f} of ${asked.usd:.2f}"
    return Reason("cost", Verdict.FAIL if spent > asked.usd else Verdict.PASS, words)


def _phase_end(gate: Gate, evidence: Evidence) -> Iterator[Reason]:
    """What may still change until the phase ends is not passed before. A drop of the loss is judged
    at its own step, so a gate that asks for it is decided there."""
    if not evidence.ended and gate.loss_drop is None:
        yield Reason("phase", Verdict.INCONCLUSIVE, "the phase still runs")


def _ask(gate: Gate, evidence: Evidence, reasons: tuple[Reason, ...]) -> Decision:
    """A person is asked last, and only about what has passed everything else."""
    if not gate.approve or evidence.approved:
        return Decision(GateVerdict.GO, reasons, key=evidence.key)
    if evidence.approved is False:
        said = Reason("approve", Verdict.FAIL, "a person said no")
        return Decision(GateVerdict.NO_GO, (*reasons, said), key=evidence.key)
    waits = Reason("approve", Verdict.INCONCLUSIVE, "waits for a person")
    return Decision(GateVerdict.WAITING, (*reasons, waits), key=evidence.key)


def _until(gate: Gate, evidence: Evidence) -> int | None:
    """How far the phase may be extended: to the last look at the loss and no further."""
    if gate.loss_drop is None:
        return None
    last = gate.loss_drop.extend_to or gate.loss_drop.within_steps
    reached = max((s.step for s in evidence.samples if s.step is not None), default=0)
    until = evidence.start_step + last
    return until if reached < until else None


def _unseen(evidence: Evidence) -> Verdict:
    return Verdict.UNOBSERVABLE if evidence.ended else Verdict.INCONCLUSIVE


def _without(value: Any, keys: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {k: _without(each, keys) for k, each in value.items() if k not in keys}
    if isinstance(value, list | tuple):
        return [_without(each, keys) for each in value]
    return value
