"""Rules that need no GPU: settings that fit one another, and evidence that is still valid."""

from __future__ import annotations

import math

from orchestrator.core.health.rule import Judgement, Rule, Verdict, judged
from orchestrator.core.health.watch import Watch

_ROUGHLY = {"mae": (0.25, 0.35), "rmse": (0.30, 0.40), "correlation": (0.0, 0.3)}


def batch(watch: Watch, rule: Rule) -> Judgement:
    """M21: the same configuration on more GPUs is a larger batch."""
    batch, before, gpus = watch.expect.batch, watch.expect.previous, watch.expect.gpus
    if batch is None or before is None or before.rows is None:
        return judged(Verdict.UNOBSERVABLE, "batch size or accumulation is not known")
    now, then = batch.rows(gpus), before.rows
    words = f"{now} rows a step, {then} on the rung before"
    if now == then:
        return judged(Verdict.PASS, words, value=now)
    equal = batch.accumulation_for(then, gpus)
    words += f": compare by rows; accumulation {equal or 'none'} is equal"
    return judged(Verdict.WARN, words, value=now / then)


def same_settings(watch: Watch, rule: Rule) -> Judgement:
    """S22, as the plan compared them."""
    changed = watch.expect.changed
    if changed is None:
        return judged(Verdict.UNOBSERVABLE, "no validation before this phase")
    if changed:
        return judged(Verdict.FAIL, f"changed: {', '.join(changed[:10])}", value=len(changed))
    return judged(Verdict.PASS, "the settings of the validation")


def baseline_exists(watch: Watch, rule: Rule) -> Judgement:
    """S1: of the same items, with the same sampling."""
    if watch.baseline is None:
        return judged(Verdict.FAIL, "there is no evaluation of the base model")
    now, then = (watch.evaluated or {}).get("config_hash"), watch.baseline.get("config_hash")
    if now is not None and then is not None and now != then:
        return judged(Verdict.FAIL, "it was evaluated with other items or sampling")
    return judged(Verdict.PASS, "the base model was evaluated")


def baseline_is_plausible(watch: Watch, rule: Rule) -> Judgement:
    """S2: never a hard gate. On the paper's scale a uniform guess has 0.203."""
    found = watch.baseline or {}
    distance = found.get("wasserstein")
    if not isinstance(distance, int | float):
        return judged(Verdict.UNOBSERVABLE, "the baseline has no wasserstein")
    odd = [
        f"{name} {found[name]:.3g}"
        for name, (low, high) in _ROUGHLY.items()
        if isinstance(found.get(name), int | float) and not low <= found[name] <= high
    ]
    guess = rule.limits["uniform"]
    words = f"wasserstein {distance:.3f}, a uniform guess has {guess}"
    if not math.isfinite(distance) or distance > guess:
        return judged(Verdict.WARN, f"{words}: worse than guessing", value=distance)
    if odd:
        return judged(Verdict.WARN, f"{words}; unusual: {', '.join(odd)}", value=distance)
    return judged(Verdict.PASS, words, value=distance)


def supports(watch: Watch, rule: Rule) -> Judgement:
    """S6: the users' document calls these both required and supporting; they warn."""
    now, then = watch.evaluated or {}, watch.baseline or {}
    pairs = (("mae", -1), ("correlation", 1))
    told = [(n, sign, now[n], then[n]) for n, sign in pairs if n in now and n in then]
    if not told:
        return judged(Verdict.UNOBSERVABLE, "neither mae nor correlation of both is told")
    worse = [f"{n} {a:.3g} from {b:.3g}" for n, sign, a, b in told if not sign * (a - b) > 0]
    if worse:
        return judged(Verdict.WARN, f"not better: {', '.join(worse)}")
    return judged(Verdict.PASS, "mae and correlation improve")


def critic_warm_up(watch: Watch, rule: Rule) -> Judgement:
    """G9."""
    wanted = 10 if watch.expect.method == "gad_warmup" else 0
    found = watch.expect.settings.get("critic_warmup")
    if found is None:
        return judged(Verdict.UNOBSERVABLE, "critic_warmup is not set")
    words = f"critic_warmup {found}, {wanted} belongs to this stage"
    return judged(Verdict.PASS if found == wanted else Verdict.FAIL, words, value=found)


def steps_are_left(watch: Watch, rule: Rule) -> Judgement:
    """G10: at or past its last step verl runs none and ends with 0. A step is the proof."""
    resume = watch.expect.resume_step or 0
    total = watch.expect.total_steps or watch.life.facts.total_steps
    if (watch.last_step or 0) > resume:
        return judged(Verdict.PASS, f"step {watch.last_step} after a resume at {resume}")
    if total is None:
        verdict = Verdict.UNOBSERVABLE if watch.ended else Verdict.INCONCLUSIVE
        return judged(verdict, f"no step after {resume} yet, and the last one is not known")
    words = f"resumes at step {resume} of {total}: {total - resume} new steps"
    if resume >= total:
        return judged(Verdict.FAIL, words, value=total - resume)
    verdict = Verdict.FAIL if watch.ended else Verdict.INCONCLUSIVE
    return judged(verdict, f"{words}, and none yet", value=total - resume)
