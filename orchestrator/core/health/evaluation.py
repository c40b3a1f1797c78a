"""Is the evaluated checkpoint better than the baseline, by more than chance?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.core.health.rule import Judgement, Rule, Verdict, judged
from orchestrator.core.health.watch import Watch
from orchestrator.core.metrics import usual_mode

Z_90 = 1.645  # a two-sided interval of 90 %


@dataclass(frozen=True)
class Question:
    """`improve_percent` of the baseline's `metric`; `confident`: only if the 90 % interval over the
    evaluation's `cells` excludes zero. `mode` None: by the metric's name."""

    metric: str
    improve_percent: float = 0.0
    mode: Literal["min", "max"] | None = None
    confident: bool = False
    least_parse_rate: float | None = None


def compare(
    found: Mapping[str, Any], baseline: Mapping[str, Any] | None, question: Question
) -> Judgement:
    """Unrounded. NaN is NO; what cannot be parsed is NO; an interval over zero is undecided."""
    readable = _parses(found, baseline, question.least_parse_rate)
    if readable is not None:
        return readable
    now, then = _number(found, question.metric), _number(baseline or {}, question.metric)
    if now is None or then is None:
        missing = "evaluation" if now is None else "baseline"
        words = f"the {missing} has no number {question.metric}"
        return judged(Verdict.UNOBSERVABLE, words)
    if not math.isfinite(now) or not math.isfinite(then):
        return judged(Verdict.FAIL, f"{question.metric} {now} against {then}")
    if then == 0:
        better = now < 0 if _is_min(question) else now > 0
        words = f"{question.metric} 0 -> {now:.4g}: no percentage of nothing"
        return judged(Verdict.INCONCLUSIVE if better else Verdict.FAIL, words)
    gain = _gain(now, then, question)
    words = f"{question.metric} {then:.4g} -> {now:.4g}, {gain:+.1f} % better"
    if gain < question.improve_percent:
        asked = f"{words}, {question.improve_percent:g} % are asked"
        return judged(Verdict.FAIL, asked, value=gain)
    guess = _number(found, "uniform")
    if guess is not None and _gain(now, guess, question) <= 0:
        return judged(Verdict.FAIL, f"{words}, but guessing has {guess:.4g}", value=gain)
    return _confidence(found, baseline or {}, question, gain, words)


def improves(watch: Watch, rule: Rule) -> Judgement:
    """S3, by Wasserstein distance over (study, condition, task); the gate may ask for less."""
    asked = watch.expect.improve_percent
    percent = rule.limits["percent"] if asked is None else asked
    question = Question("wasserstein", percent, "min", confident=True)
    return compare(watch.evaluated or {}, watch.baseline, question)


def parses(watch: Watch, rule: Rule) -> Judgement:
    """S4: what cannot be parsed counts as the worst answer and is never dropped."""
    found = watch.evaluated or {}
    rates = [_number(each, "parse_rate") for each in (found, watch.baseline or {})]
    if rates[0] is None:
        return judged(Verdict.UNOBSERVABLE, "the evaluation tells no parse_rate")
    lowest = min(rate for rate in rates if rate is not None)
    words = f"{100 * lowest:.1f} % of the answers can be read"
    unique = _number(found, "unique_ratio")
    if unique is not None and unique < rule.limits["unique"]:
        return judged(Verdict.FAIL, f"{words}, and all are the same", value=unique)
    if not lowest >= rule.limits["fail_below"]:
        return judged(Verdict.FAIL, words, value=lowest)
    good = lowest >= rule.limits["warn_below"]
    return judged(Verdict.PASS if good else Verdict.WARN, words, value=lowest)


def _parses(
    found: Mapping[str, Any], baseline: Mapping[str, Any] | None, least: float | None
) -> Judgement | None:
    """What is wrong with the answers themselves, or None."""
    if least is None:
        return None
    for name, each in (("evaluation", found), ("baseline", baseline or {})):
        rate = _number(each, "parse_rate")
        if rate is None:
            return judged(Verdict.UNOBSERVABLE, f"the {name} tells no parse_rate")
        if not rate >= least:
            words = f"{100 * rate:.1f} % of the {name}'s answers can be read"
            return judged(Verdict.FAIL, f"{words}, {100 * least:g} % are asked", value=rate)
    return None


def _confidence(
    found: Mapping[str, Any],
    baseline: Mapping[str, Any],
    question: Question,
    gain: float,
    words: str,
) -> Judgement:
    if not question.confident:
        return judged(Verdict.PASS, words, value=gain)
    error = _jackknife(_pairs(found, baseline), question)
    if error is None:
        words += "; without `cells` of both, chance cannot be excluded"
        return judged(Verdict.INCONCLUSIVE, words, value=gain)
    low = gain - Z_90 * error
    words += f", at least {low:+.1f} % with 90 % confidence"
    return judged(Verdict.PASS if low > 0 else Verdict.INCONCLUSIVE, words, value=gain)


def _pairs(found: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[tuple[float, float]]:
    now, then = found.get("cells"), baseline.get("cells")
    if not isinstance(now, Mapping) or not isinstance(then, Mapping):
        return []
    shared = sorted(set(now) & set(then), key=str)
    both = [(_number(now, key), _number(then, key)) for key in shared]
    return [
        (a, b)
        for a, b in both
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
    ]


def _jackknife(pairs: list[tuple[float, float]], question: Question) -> float | None:
    """Standard error of the gain, cell by cell left out: a bootstrap without dice."""
    if len(pairs) < 2:
        return None
    now, then = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    if any(then - b == 0 for _, b in pairs):
        return None
    left = [_gain(now - a, then - b, question) for a, b in pairs]
    mean, count = sum(left) / len(left), len(left)
    return math.sqrt((count - 1) / count * sum((each - mean) ** 2 for each in left))


def _gain(now: float, then: float, question: Question) -> float:
    sign = 1 if _is_min(question) else -1
    return sign * 100 * (then - now) / abs(then)


def _is_min(question: Question) -> bool:
    return (question.mode or usual_mode(question.metric)) == "min"


def _number(found: Mapping[str, Any], name: str) -> float | None:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
