"""Rules on the loss: does it fall, does it stay a number, does it jump."""

from __future__ import annotations

import math

from orchestrator.core.health.falls import SURE, look
from orchestrator.core.health.rule import Judgement, Rule, Verdict, judged
from orchestrator.core.health.series import (
    Drop,
    Point,
    between,
    drop,
    fluctuation,
    points,
    slope,
    spikes,
)
from orchestrator.core.health.watch import Watch
from orchestrator.core.signatures.numbers import evaluation_nan, look_for_nan

LN2 = math.log(2)


def not_a_number(watch: Watch, rule: Rule) -> Judgement:
    """M5: by the truth table of `signatures.numbers`."""
    found = look_for_nan(watch.samples, ended=watch.ended)
    if found is None:
        return _evaluations_are_numbers(watch)
    sample = found.sample
    step = sample.step
    where = f"step {step}: {found.why}" if step is not None else found.why
    window = (step, step) if step is not None else None
    verdict = Verdict.FAIL if found.sure else Verdict.INCONCLUSIVE
    return judged(verdict, where, window=window, offset=sample.offset)


def _evaluations_are_numbers(watch: Watch) -> Judgement:
    """One row whose labels are all masked makes an evaluation's loss NaN: training goes on."""
    for sample in reversed(watch.samples):
        name = evaluation_nan(sample)
        if name:
            return judged(Verdict.WARN, f"{name} is no number at step {sample.step}")
    return judged(Verdict.PASS, f"{len(watch.samples)} points, all of them numbers")


def fell_at_all(watch: Watch, rule: Rule) -> Judgement:
    """M1: below its beginning; the last word is at the last look."""
    if watch.reached < rule.window:
        return _too_early(watch, rule.window)
    found = drop(watch.losses, start=watch.expect.start_step)
    if found is None:
        return _too_early(watch, rule.window)
    if found.percent > 0:
        return _told(Verdict.PASS, found)
    late = watch.reached >= rule.limits["last_look"]
    if late and watch.goes_on and -found.percent <= SURE * found.error_percent:
        return _told(Verdict.WARN, found)
    return _told(Verdict.FAIL if late else Verdict.INCONCLUSIVE, found)


def fell_enough(watch: Watch, rule: Rule) -> Judgement:
    """M2: two looks, at 100 and at 200 steps."""
    seen = look(
        watch.losses,
        start=watch.expect.start_step,
        percent=rule.limits["percent"],
        within=rule.window,
        extend=int(rule.limits["last_look"]),
        ended=watch.ended,
    )
    window = (seen.drop.from_step, seen.drop.to_step) if seen.drop else None
    value = seen.drop.percent if seen.drop else None
    verdict = Verdict.PASS if seen.good else Verdict.INCONCLUSIVE
    if seen.last and not seen.good and seen.drop:
        soft = seen.drop.percent > 0 or watch.goes_on
        verdict = Verdict.WARN if soft else Verdict.FAIL
    return judged(verdict, seen.words, value=value, window=window)


def trend(watch: Watch, rule: Rule) -> Judgement:
    """M3: a rising line fails only together with M1; single steps rise in every healthy run."""
    if watch.reached < rule.limits["last_look"]:
        return _too_early(watch, int(rule.limits["last_look"]))
    recent = _recent(watch, rule.window)
    fitted = slope(recent)
    found = drop(watch.losses, start=watch.expect.start_step)
    if fitted is None or found is None:
        return _too_early(watch, int(rule.limits["last_look"]))
    window = (recent[0][0], recent[-1][0])
    words = f"{fitted:+.2e} a step over the last {rule.window} steps"
    surely = not watch.goes_on or -found.percent > SURE * found.error_percent
    rising = fitted > 0 and found.percent <= 0 and surely
    verdict = Verdict.FAIL if rising else Verdict.PASS
    return judged(verdict, words, value=fitted, window=window)


def falls_steadily(watch: Watch, rule: Rule) -> Judgement:
    """S5: over a validation of 500 steps; 2.5 -> 2.4 was the users' own example of NO-GO."""
    if watch.reached < rule.window:
        return _too_early(watch, rule.window)
    first = between(watch.losses, watch.expect.start_step, watch.expect.start_step + rule.window)
    found = drop(first, start=watch.expect.start_step)
    if found is None:
        return _too_early(watch, rule.window)
    if found.percent < rule.limits["fail_percent"]:
        return _told(Verdict.WARN if watch.goes_on else Verdict.FAIL, found)
    good = found.percent >= rule.limits["percent"]
    return _told(Verdict.PASS if good else Verdict.WARN, found)


def falls_over_few_points(watch: Watch, rule: Rule) -> Judgement:
    """S13: an infrastructure test logs about five points; two windows would be one and the same."""
    if len(watch.losses) < 3:
        return judged(Verdict.INCONCLUSIVE, f"{len(watch.losses)} points")
    first, last = watch.losses[0], watch.losses[-1]
    fitted = slope(watch.losses)
    words = f"{first[1]:.4g} -> {last[1]:.4g} over {len(watch.losses)} points"
    falls = last[1] < first[1] and fitted is not None and fitted < 0
    bad = Verdict.WARN if watch.goes_on else Verdict.FAIL
    verdict = Verdict.PASS if falls else bad
    return judged(verdict, words, value=fitted, window=(first[0], last[0]))


def rises(watch: Watch, rule: Rule) -> Judgement:
    """F3: the end of a window is above its beginning by more than noise."""
    recent = _recent(watch, rule.window)
    if watch.warm is None or watch.warm + rule.window > (watch.last_step or 0):
        return _too_early(watch, rule.window)
    found = drop(recent, start=(watch.last_step or 0) - rule.window)
    if found is None:
        return _too_early(watch, rule.window)
    beyond = -found.percent > max(rule.limits["percent"], SURE * found.error_percent)
    return _told(Verdict.WARN if beyond else Verdict.PASS, found)


def is_stuck(watch: Watch, rule: Rule) -> Judgement:
    """F4: of the first steps after warm-up. A long run may well be flat much later."""
    begin = watch.warm
    if begin is None or (watch.last_step or 0) < begin + rule.window:
        return _too_early(watch, rule.window)
    found = drop(between(watch.losses, begin, begin + rule.window), start=begin)
    if found is None:
        return _too_early(watch, rule.window)
    stuck = abs(found.percent) < rule.limits["percent"]
    return _told(Verdict.WARN if stuck else Verdict.PASS, found)


def jumps(watch: Watch, rule: Rule) -> Judgement:
    """S7: spread around the fitted line, or several spikes."""
    recent = _recent(watch, rule.window)
    spread = fluctuation(recent)
    if spread is None or len(recent) < 10:
        return _too_early(watch, rule.window)
    high = spikes(recent, rule.limits["sigmas"])
    window = (recent[0][0], recent[-1][0])
    words = f"spread {100 * spread:.0f} % of the loss, {len(high)} spikes"
    wild = spread > rule.limits["spread"] or len(high) >= rule.limits["spikes"]
    return judged(Verdict.WARN if wild else Verdict.PASS, words, value=spread, window=window)


def evaluation_rises(watch: Watch, rule: Rule) -> Judgement:
    """S7: the last two evaluations are both above the best one."""
    curve = points(watch.samples, "eval_loss")
    if len(curve) < 3:
        return judged(Verdict.INCONCLUSIVE, f"{len(curve)} evaluations")
    best = min(value for _, value in curve)
    limit = best + abs(best) * rule.limits["percent"] / 100
    worse = all(value > limit for _, value in curve[-2:])
    words = f"best {best:.4g}, now {curve[-1][1]:.4g}"
    window = (curve[0][0], curve[-1][0])
    verdict = Verdict.WARN if worse else Verdict.PASS
    return judged(verdict, words, value=curve[-1][1], window=window)


def starts_at_ln2(watch: Watch, rule: Rule) -> Judgement:
    """M17: policy and reference are the same at the first step, so the loss is ln 2 exactly; only
    DPO, whose loss has no other term there."""
    if not watch.losses:
        return judged(Verdict.INCONCLUSIVE, "no loss was told yet")
    step, value = watch.losses[0]
    words = f"{value:.4f} at step {step}, ln 2 is {LN2:.4f}"
    window = (step, step)
    if value > rule.limits["fail_above"]:
        return judged(Verdict.FAIL, words, value=value, window=window)
    if not rule.limits["low"] <= value <= rule.limits["high"]:
        return judged(Verdict.WARN, words, value=value, window=window)
    exact = watch.expect.method == "dpo" and step == watch.expect.start_step + 1
    off = abs(value - LN2) > rule.limits["tolerance"]
    verdict = Verdict.WARN if exact and off else Verdict.PASS
    return judged(verdict, words, value=value, window=window)


def _recent(watch: Watch, window: int) -> list[Point]:
    last = watch.last_step or 0
    low = max(last - window, watch.expect.start_step)
    return between(watch.losses, low, last)


def _told(verdict: Verdict, found: Drop) -> Judgement:
    words = f"{found.first:.4g} -> {found.last:.4g}, {found.percent:+.1f} % less"
    return judged(verdict, words, value=found.percent, window=(found.from_step, found.to_step))


def _too_early(watch: Watch, need: int) -> Judgement:
    return judged(Verdict.INCONCLUSIVE, f"{watch.reached} steps, {need} are needed")
