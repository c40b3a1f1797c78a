"""What the job file's `health:` says: what to do when a rule fires, and rules of the user's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.core.health.rule import Judgement, Verdict, judged
from orchestrator.core.health.series import between
from orchestrator.core.health.watch import Watch

# "restart": of a hang alone.
Action = Literal["warn", "stop", "ask", "restart", "off"]
DEFAULTS: Mapping[str, Action] = {
    "nan": "stop",
    "oom": "stop",
    "loss_flat": "warn",
    "loss_erratic": "warn",
    "grad_explosion": "warn",
    "low_gpu": "warn",
    "hang": "restart",
    "slow": "warn",
    "resume_ignored": "stop",
    "checkpoint_missing": "warn",
    "over_cost": "warn",
    "not_distributed": "stop",
    "recipe": "warn",
}


@dataclass(frozen=True)
class OwnRule:
    """`metric` stayed above, or below, a limit for so many steps. Exactly one limit is set."""

    metric: str
    above: float | None = None
    below: float | None = None
    for_steps: int = 1
    action: Action = "warn"
    name: str | None = None

    @property
    def id(self) -> str:
        limit = f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"
        return self.name or f"{self.metric} {limit}"


@dataclass(frozen=True)
class Wishes:
    """The job file's answer for every flag; a flag that it does not name has its default."""

    actions: Mapping[str, Action] = field(default_factory=dict)
    own: tuple[OwnRule, ...] = ()

    def action(self, flag: str) -> Action:
        return self.actions.get(flag) or DEFAULTS.get(flag, "warn")


def wishes(health: Mapping[str, Any]) -> Wishes:
    """From the `health` of a job, as JSON; the model in `spec.job` has checked it."""
    own = tuple(OwnRule(**each) for each in health.get("rules") or ())
    actions = {flag: value for flag, value in health.items() if flag in DEFAULTS}
    return Wishes(actions, own)


def judge_own(rule: OwnRule, watch: Watch) -> Judgement:
    """Fails when every point of the last `for_steps` steps is beyond the limit."""
    told = ((each.step, each.get(rule.metric)) for each in watch.samples)
    curve = [(s, v) for s, v in told if s is not None and v is not None]
    if not curve:
        observed = bool(watch.samples) or watch.ended
        verdict = Verdict.UNOBSERVABLE if observed else Verdict.INCONCLUSIVE
        return judged(verdict, f"{rule.metric} was never told")
    last, first = curve[-1][0], curve[0][0]
    recent = between(curve, last - rule.for_steps, last)
    window = (recent[0][0], last)
    value = curve[-1][1]
    words = f"{rule.metric} {value:.4g} at step {last}"
    if not all(_is_beyond(rule, each) for _, each in recent):
        return judged(Verdict.PASS, words, value=value, window=window)
    begin = min(first, watch.expect.start_step + 1)
    if last - begin + 1 < rule.for_steps:
        words = f"{words}, for {last - begin + 1} of {rule.for_steps} steps"
        return judged(Verdict.INCONCLUSIVE, words, value=value, window=window)
    words = f"{words}, for {rule.for_steps} steps ({rule.id})"
    return judged(Verdict.FAIL, words, value=value, window=window)


def _is_beyond(rule: OwnRule, value: float) -> bool:
    """What is no number is within no limit."""
    if math.isnan(value):
        return True
    if rule.above is not None:
        return value > rule.above
    return rule.below is not None and value < rule.below
