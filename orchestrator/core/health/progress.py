"""Rules on what a run leaves behind: steps, checkpoints, a resume that resumed, money."""

from __future__ import annotations

import math
import statistics

from orchestrator.core.health.falls import SURE
from orchestrator.core.health.rule import Judgement, Rule, Verdict, judged
from orchestrator.core.health.series import points
from orchestrator.core.health.silence import BUDGETS_S
from orchestrator.core.health.watch import Watch
from orchestrator.core.signatures.lifecycle import Doing


def saves(watch: Watch, rule: Rule) -> Judgement:
    """F6 and G5: a save that is under way is not missed yet, and a large one may take longer than
    the steps until the next."""
    every = watch.expect.save_steps or 0
    if every <= 0:
        return judged(Verdict.UNOBSERVABLE, "the plan does not say how often it saves")
    begin = watch.expect.resume_step or watch.expect.start_step
    newest = max([begin, *(each.step for each in watch.saved if each.step is not None)])
    slack = max(1, every // 10)
    missed = max(0, ((watch.last_step or 0) - slack) // every - newest // every)
    words = f"newest checkpoint at step {newest}, step is {watch.last_step}, one every {every}"
    late_s = missed * every * (watch.step_s or 0.0)
    if missed >= rule.limits["missed"] and (watch.ended or late_s > BUDGETS_S[Doing.SAVE]):
        return judged(Verdict.FAIL, words, value=missed)
    return judged(Verdict.WARN if missed else Verdict.PASS, words, value=missed)


def count_of_saves(watch: Watch, rule: Rule) -> Judgement:
    """G6: new steps count. verl counts a stage's steps on from where the one before ended."""
    every, total = watch.expect.save_steps, watch.expect.total_steps
    if not every or not total:
        return judged(Verdict.UNOBSERVABLE, "the plan names no last step or no interval")
    begin = watch.expect.resume_step or watch.expect.start_step
    wanted = total // every - begin // every
    found = len({each.step for each in watch.saved if each.step and each.step > begin})
    words = f"{found} of {wanted} checkpoints ({total - begin} new steps, one every {every})"
    if found >= wanted:
        return judged(Verdict.PASS, words, value=found)
    return judged(Verdict.WARN if watch.ended else Verdict.INCONCLUSIVE, words, value=found)


def all_are_home(watch: Watch, rule: Rule) -> Judgement:
    """S11: every checkpoint of a short test, saved and mirrored."""
    every, stop = watch.expect.save_steps, watch.expect.stop_after_steps
    if not every or not stop:
        return judged(Verdict.UNOBSERVABLE, "the plan names no end or no interval")
    first = watch.expect.start_step
    wanted = {step for step in range(first + 1, first + stop + 1) if step % every == 0}
    missing = sorted(wanted - {each.step for each in watch.saved if each.here})
    if not missing:
        return judged(Verdict.PASS, f"all {len(wanted)} checkpoints are here", value=len(wanted))
    words = f"not here: steps {', '.join(map(str, missing[:10]))}"
    return judged(Verdict.FAIL if watch.ended else Verdict.INCONCLUSIVE, words, value=len(missing))


def final_is_whole(watch: Watch, rule: Rule) -> Judgement:
    """F7."""
    if any(each.final for each in watch.saved):
        return judged(Verdict.PASS, "final weights are here")
    return judged(Verdict.FAIL, "the trainer ended and `final` is not here")


def reached_the_end(watch: Watch, rule: Rule) -> Judgement:
    """S10: the last step is the asked one."""
    stop = watch.expect.stop_after_steps or 0
    words = f"step {watch.reached} of {stop}"
    if watch.reached >= stop:
        return judged(Verdict.PASS, words, value=watch.reached)
    return judged(Verdict.FAIL if watch.ended else Verdict.INCONCLUSIVE, words, value=watch.reached)


def resumed(watch: Watch, rule: Rule) -> Judgement:
    """M23 and G10: what the log says, and the first step it counts. A program that begins anew
    says so, or says nothing and counts from 1."""
    begin, facts, first = watch.expect.resume_step or 0, watch.life.facts, watch.first_step
    if facts.from_scratch and not facts.resumed_from:
        return judged(Verdict.FAIL, "the trainer says that it starts from scratch")
    if first is not None and first <= begin:
        words = f"first step {first}, the checkpoint is of step {begin}"
        return judged(Verdict.FAIL, words, value=first, window=(first, first))
    if first is not None:
        words = f"step {first} after the checkpoint of step {begin}"
        return judged(Verdict.PASS, words, value=first)
    if watch.ended:
        return judged(Verdict.FAIL, "it ended without a new step")
    if watch.life.doing is Doing.TRAIN and not facts.resumed_from:
        return judged(Verdict.INCONCLUSIVE, "it trains, and does not say from where")
    return judged(Verdict.INCONCLUSIVE, f"no step yet after the checkpoint of step {begin}")


def resumed_alike(watch: Watch, rule: Rule) -> Judgement:
    """S18: the steps that both attempts made have the same loss. One that differs may be another
    order of rows, or the rounding of another GPU; all of them together are another model."""
    begin = watch.expect.resume_step or 0
    before = dict(points(watch.earlier))
    shared = [(s, v, before[s]) for s, v in watch.losses if s > begin and s in before]
    if not shared:
        return judged(Verdict.INCONCLUSIVE, f"no step after {begin} that both attempts made")
    part, window = rule.limits["part"], (shared[0][0], shared[-1][0])
    step, now, then = max(shared, key=lambda each: abs(each[1] - each[2]))
    words = f"step {step}: {now:.4g}, and {then:.4g} before; {len(shared)} steps compared"
    if abs(now - then) <= part * abs(then):
        return judged(Verdict.PASS, words, value=_off(now - then, then), window=window)
    apart = statistics.fmean(a - b for _, a, b in shared)
    mean = statistics.fmean(b for _, _, b in shared)
    words += f", {100 * _off(apart, mean):+.1f} % on average"
    level = abs(apart) > part * abs(mean) and abs(apart) > SURE * _error(shared)
    verdict = Verdict.FAIL if level and len(shared) > 1 else Verdict.WARN
    return judged(verdict, words, value=_off(apart, mean), window=window)


def _off(apart: float, level: float) -> float:
    return apart / max(abs(level), 1e-9)


def _error(shared: list[tuple[int, float, float]]) -> float:
    """Standard error of the mean difference."""
    apart = [now - then for _, now, then in shared]
    return statistics.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0


def phase_cost(watch: Watch, rule: Rule) -> Judgement:
    """M22: against what the phase was to cost."""
    cap, spent = watch.expect.phase_usd, watch.spent_usd
    if not cap or spent is None:
        return judged(Verdict.UNOBSERVABLE, "the plan names no price for this phase")
    words = f"${spent:.2f} of ${cap:.2f}"
    if spent >= rule.limits["times"] * cap:
        return judged(Verdict.FAIL, words, value=spent / cap)
    return judged(Verdict.WARN if spent > cap else Verdict.PASS, words, value=spent / cap)


def forecast(watch: Watch, rule: Rule) -> Judgement:
    """S20: from measured seconds a step, never from a document's hours."""
    expect, step_s = watch.expect, watch.step_s
    price, total, budget = expect.price_usd_per_hour, expect.total_steps, expect.budget_usd
    if None in (price, total, budget):
        return judged(Verdict.UNOBSERVABLE, "no price, budget or last step is known")
    if step_s is None or watch.last_step is None:
        return judged(Verdict.INCONCLUSIVE, "no pace yet")
    left_s = max(0, (total or 0) - watch.last_step) * step_s
    sum_usd = (watch.run_usd or 0.0) + left_s / 3600 * (price or 0.0)
    words = f"{left_s / 3600:.1f} h to go, ${sum_usd:.2f} in all of ${budget:.2f}"
    over = sum_usd > (budget or 0.0)
    return judged(Verdict.WARN if over else Verdict.PASS, words, value=sum_usd)
