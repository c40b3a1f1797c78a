"""Every rule over one observation: what was found, on what evidence, and what is to be done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.health.rule import Evidence, Judgement, Rule, Verdict, apply
from orchestrator.core.health.rules import RULES
from orchestrator.core.health.user import Action, Wishes, judge_own
from orchestrator.core.health.watch import Watch


@dataclass(frozen=True)
class Finding:
    """One rule's verdict. `action` is None while there is nothing to do. A trainer that is stopped
    for a hang is dumped first."""

    rule: str
    also: tuple[str, ...]
    flag: str
    verdict: Verdict
    action: Action | None
    evidence: Evidence
    advice: str


def judge(
    watch: Watch, wishes: Wishes | None = None, *, rules: Iterable[Rule] = RULES
) -> tuple[Finding, ...]:
    """The findings of all rules that concern this phase and are not `off`, in the table's order.

    The same observation gives the same findings: nothing is remembered in between."""
    wanted = wishes or Wishes()
    found = []
    for rule in rules:
        action = wanted.action(rule.flag)
        judgement = apply(rule, watch) if action != "off" else None
        if judgement is not None:
            found.append(_finding(rule, judgement, action))
    for own in wanted.own:
        if own.action != "off":
            verdict, evidence = judge_own(own, watch)
            wish = own.action if verdict is Verdict.FAIL else None
            found.append(Finding(own.id, (), "rules", verdict, wish, evidence, ""))
    return tuple(found)


def fired(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that ask for something, the gravest first."""
    order = ("stop", "restart", "ask", "warn")
    acting = [each for each in findings if each.action in order]
    return tuple(sorted(acting, key=lambda each: order.index(each.action or "warn")))


def _finding(rule: Rule, judgement: Judgement, wanted: Action) -> Finding:
    verdict, evidence = judgement
    action: Action | None = None
    if verdict in (Verdict.FAIL, rule.acts):
        action = wanted
    elif verdict is Verdict.WARN:
        action = "warn"
    advice = rule.advice if action else ""
    return Finding(rule.id, rule.also, rule.flag, verdict, action, evidence, advice)
