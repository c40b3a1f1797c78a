"""Rules on gradients, on what a method logs beside its loss, and on what is logged at all."""

from __future__ import annotations

import math
import statistics

from orchestrator.core.health.rule import Judgement, Rule, Verdict, judged
from orchestrator.core.health.series import between, mean_of_last, points
from orchestrator.core.health.watch import Watch

_KL = ("actor/kl_loss", "actor/ppo_kl", "kl")
_VALIDATION = ("rouge", "win_rate", "win-rate", "reward", "score")


def norm(watch: Watch, rule: Rule) -> Judgement:
    """M6. Healthy runs show 28 (SFT) or 164 (DPO) at their first step, so the bands hold after
    warm-up; before it only what no healthy run shows fails."""
    curve = points(watch.samples, "grad_norm")
    early = [p for p in curve if p[1] > rule.limits["fail_in_warm_up"]]
    if early:
        words = f"{early[0][1]:.3g} at step {early[0][0]}"
        return judged(Verdict.FAIL, words, value=early[0][1], window=(early[0][0], early[0][0]))
    recent = between(curve, watch.warm, watch.last_step or 0) if watch.warm is not None else []
    recent = recent[-rule.window :]
    if not recent:
        return judged(Verdict.INCONCLUSIVE, "still warming up")
    middle, highest = statistics.median(v for _, v in recent), max(v for _, v in recent)
    window = (recent[0][0], recent[-1][0])
    words = f"median {middle:.3g}, highest {highest:.3g} over the last {len(recent)} points"
    if highest > rule.limits["fail_above"] or middle == 0:
        return judged(Verdict.FAIL, words, value=highest if middle else 0.0, window=window)
    usual = rule.limits["low"] <= middle <= rule.limits["high"]
    return judged(Verdict.PASS if usual else Verdict.WARN, words, value=middle, window=window)


def skips(watch: Watch, rule: Rule) -> Judgement:
    """G4: verl and fp16 leave out updates whose gradient is not finite, and go on."""
    row = max(watch.life.facts.skipped_in_a_row, _last_row(watch))
    words = f"{row} updates left out in a row"
    verdict = Verdict.FAIL if row > rule.limits["in_a_row"] else Verdict.PASS
    return judged(verdict, words, value=row)


def _last_row(watch: Watch) -> int:
    row = 0
    for sample in watch.samples:
        norms = [sample.get(name) for name in ("grad_norm", "critic/grad_norm")]
        told = [value for value in norms if value is not None]
        if told:
            row = row + 1 if any(not math.isfinite(value) for value in told) else 0
    return row


def kl(watch: Watch, rule: Rule) -> Judgement:
    """G1. The 0.001 of the users' document is the coefficient, not the divergence."""
    seen = []
    for name in _KL:
        curve = points(watch.samples, name)
        if len(curve) < 2:
            continue
        step, value = curve[-1]
        middle = statistics.median(abs(v) for _, v in curve[:-1][-rule.window :])
        high = value > rule.limits["above"]
        high = high or (middle > 0 and value >= rule.limits["times_median"] * middle)
        words = f"{name} {value:.3g} at step {step}, median before {middle:.3g}"
        seen.append((high, words, value, step))
    if not seen:
        return judged(Verdict.INCONCLUSIVE, "fewer than two points")
    worst = max(seen, key=lambda each: each[0])
    verdict = Verdict.WARN if worst[0] else Verdict.PASS
    return judged(verdict, worst[1], value=worst[2], window=(worst[3], worst[3]))


def validation(watch: Watch, rule: Rule) -> Judgement:
    """G2: by a text score. The discriminator's own score moves with the discriminator."""
    names = sorted({n for s in watch.samples for n in s.values if _is_validation(n)})
    if not names:
        return judged(Verdict.UNOBSERVABLE, "no validation score was told")
    name = min(names, key=lambda n: next(i for i, w in enumerate(_VALIDATION) if w in n.lower()))
    curve = points(watch.samples, name)
    if len(curve) < 2:
        return judged(Verdict.INCONCLUSIVE, f"{len(curve)} validations of {name}")
    best = max(range(len(curve)), key=lambda i: (curve[i][1], -i))
    behind = len(curve) - 1 - best
    words = f"{name} is best at step {curve[best][0]}, {behind} validations ago"
    verdict = Verdict.WARN if behind >= rule.limits["behind"] else Verdict.PASS
    return judged(verdict, words, value=curve[-1][1], window=(curve[best][0], curve[-1][0]))


def _is_validation(name: str) -> bool:
    return name.startswith("val") and any(word in name.lower() for word in _VALIDATION)


def learning_rate(watch: Watch, rule: Rule) -> Judgement:
    """G3: another rate means another branch or script than the plan's."""
    wanted = watch.expect.settings.get("learning_rate", rule.limits["rate"])
    seen: dict[str, float] = {}
    for name in ("learning_rate", "critic/lr"):
        curve = points(watch.samples, name)
        if curve and (watch.warm is None or curve[-1][0] >= watch.warm):
            seen[name] = max(value for _, value in curve)
    if not seen:
        return judged(Verdict.INCONCLUSIVE, "still warming up")
    wrong = {n: v for n, v in seen.items() if not math.isclose(v, wanted, rel_tol=1e-3)}
    words = ", ".join(f"{n} {v:.3g}" for n, v in (wrong or seen).items()) + f"; {wanted:g} is asked"
    warming = watch.warm is None and all(v < wanted for v in wrong.values())
    if wrong and warming and len({s.learning_rate for s in watch.samples}) > 1:
        return judged(Verdict.INCONCLUSIVE, f"{words}; it still rises")
    return judged(Verdict.FAIL if wrong else Verdict.PASS, words)


def discriminator(watch: Watch, rule: Rule) -> Judgement:
    """G7: at 1 the student learns nothing from it, at one half it has learnt nothing itself."""
    curve = points(watch.samples, "critic/d_acc")
    recent = between(curve, curve[-1][0] - rule.window, curve[-1][0])
    if curve[-1][0] - curve[0][0] < rule.window - 1:
        return judged(Verdict.INCONCLUSIVE, f"{len(recent)} of {rule.window} steps")
    window, mean = (recent[0][0], recent[-1][0]), statistics.fmean(v for _, v in recent)
    if all(value > rule.limits["saturated"] for _, value in recent):
        return judged(Verdict.WARN, f"saturated: {mean:.2f} on average", value=mean, window=window)
    chance = all(abs(value - 0.5) < rule.limits["chance"] for _, value in curve)
    if watch.expect.method == "gad_warmup" and chance:
        words = f"it is not learning: {mean:.2f} on average"
        return judged(Verdict.WARN, words, value=mean, window=window)
    return judged(Verdict.PASS, f"{mean:.2f} on average", value=mean, window=window)


def preferences(watch: Watch, rule: Rule) -> Judgement:
    """M18: judged some steps after warm-up, on means."""
    begin = watch.warm
    if begin is None or (watch.last_step or 0) < begin + rule.window:
        return judged(Verdict.INCONCLUSIVE, f"{rule.window} steps after warm-up are needed")
    right = mean_of_last(_first_told(watch, "rewards/accuracies", "rewards/accuracy"))
    chosen = mean_of_last(points(watch.samples, "rewards/chosen"))
    rejected = mean_of_last(points(watch.samples, "rewards/rejected"))
    if right is None:
        return judged(Verdict.INCONCLUSIVE, "no accuracy in the window")
    words = f"accuracy {right:.2f}"
    if right <= 0.5 + rule.limits["chance"]:
        return judged(Verdict.FAIL, f"{words}: no better than chance", value=right)
    if chosen is not None and rejected is not None and chosen <= rejected:
        words += f", chosen {chosen:.3g} is not above rejected {rejected:.3g}"
        return judged(Verdict.WARN, words, value=right)
    return judged(Verdict.PASS, words, value=right)


def _first_told(watch: Watch, *names: str) -> list[tuple[int, float]]:
    return next((curve for name in names if (curve := points(watch.samples, name))), [])


def is_observed(watch: Watch, rule: Rule) -> Judgement:
    """M19: what is missing here makes other rules blind."""
    wanted = ("loss", "learning_rate", "tokens_per_s")
    missing = [name for name in wanted if all(s.get(name) is None for s in watch.samples)]
    if not watch.samples and not watch.ended:
        return judged(Verdict.INCONCLUSIVE, "nothing was told yet")
    if missing:
        return judged(Verdict.UNOBSERVABLE, f"not told: {', '.join(missing)}")
    return judged(Verdict.PASS, "loss, learning rate and speed are told")
