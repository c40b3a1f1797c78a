"""What a rule is, and what it answers. The rules themselves are in `rules.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.health.watch import Watch
from orchestrator.core.signatures.lifecycle import Doing


class Verdict(StrEnum):
    """`inconclusive` may still become another verdict; `unobservable` cannot, and is no pass."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    UNOBSERVABLE = "unobservable"


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on: the number, the steps it is of, where in the log, and in words."""

    words: str
    value: float | None = None
    window: tuple[int, int] | None = None
    offset: int | None = None


Judgement = tuple[Verdict, Evidence]
Evaluate = Callable[[Watch, "Rule"], Judgement]


@dataclass(frozen=True)
class Rule:
    """One row. `flag` is its name under `health:` in the job file; rows may share one.

    `also`: ids of the users' documents that this row answers too. `needs`: metrics without which
    it cannot be seen. `during`: what the trainer must be doing (None: anything). `only`: whether it
    concerns this phase at all. `window` counts steps; `limits` are its thresholds. `acts`: the
    mildest verdict that asks for what the job file says; WARN for rules that never fail."""

    id: str
    flag: str
    what: str
    evaluate: Evaluate
    also: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    during: frozenset[Doing] | None = None
    only: Callable[[Watch], bool] | None = None
    window: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    acts: Verdict = Verdict.FAIL
    advice: str = ""


def apply(rule: Rule, watch: Watch) -> Judgement | None:
    """The rule's judgement, or None when it does not concern this phase or this moment."""
    if rule.only is not None and not rule.only(watch):
        return None
    if rule.during is not None and watch.life.doing not in rule.during:
        return None
    missing = [name for name in rule.needs if not _is_told(watch, name)]
    if missing:
        return _unseen(watch, missing)
    return rule.evaluate(watch, rule)


def judged(
    verdict: Verdict,
    words: str,
    *,
    value: float | None = None,
    window: tuple[int, int] | None = None,
    offset: int | None = None,
) -> Judgement:
    return verdict, Evidence(words, value, window, offset)


def _is_told(watch: Watch, name: str) -> bool:
    """`a|b` is told when either is; `gpu` by the box and not by the trainer."""
    if name == "gpu":
        return bool(watch.gpus)
    return any(each.get(one) is not None for one in name.split("|") for each in watch.samples)


def _unseen(watch: Watch, missing: list[str]) -> Judgement:
    words = f"no {' and no '.join(missing)} was told"
    if watch.samples or watch.ended:
        return judged(Verdict.UNOBSERVABLE, f"{words}: nobody can say")
    return judged(Verdict.INCONCLUSIVE, f"{words} yet")
