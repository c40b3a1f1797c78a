"""How long each phase of a trainer may say nothing, and when silence is a hang.

A hang needs both: the budget passed *and* a machine that does nothing. An unknown machine is not
an idle one.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.health.rule import Judgement, Rule, Verdict, judged
from orchestrator.core.health.watch import Quiet, Watch
from orchestrator.core.signatures.lifecycle import Doing

MINUTE = 60.0
BUDGETS_S: Mapping[Doing, float] = {
    Doing.BOOT: 10 * MINUTE,
    Doing.DEPS: 20 * MINUTE,
    Doing.MODEL_DOWNLOAD: 30 * MINUTE,
    Doing.TOKENISE: 20 * MINUTE,
    Doing.MODEL_LOAD: 20 * MINUTE,
    Doing.CACHING_REF: 10 * MINUTE,
    Doing.ROLLOUT_ENGINE_START: 15 * MINUTE,
    Doing.TRAIN: 5 * MINUTE,
    Doing.SAVE: 15 * MINUTE,
    Doing.EVAL: 30 * MINUTE,
    Doing.FINALISE: 20 * MINUTE,
    Doing.UPLOAD: 30 * MINUTE,
}
STEPS = 10  # of the median length
# Below this a machine idles: an idle GPU shows 0, an idle Linux box a percent or two.
IDLE_PERCENT, BUSY_PERCENT, IDLE_BYTES_PER_S = 5.0, 95.0, 10_000.0
IDLE_PASSED_BYTES_PER_S = 100_000.0  # what watches a trainer from within it reads /proc
SPIN = 3  # budgets until a full GPU without a step counts as a barrier that nobody reaches


def budget_s(watch: Watch) -> float:
    """Seconds of silence that what the trainer is doing may have; the job file may give more, and
    of a trainer that makes steps it may ask for them sooner."""
    usual, own = BUDGETS_S.get(watch.life.doing, 0.0), watch.expect.hang_s
    if watch.life.doing is Doing.TRAIN:
        return max(usual if own is None else own, STEPS * (watch.step_s or 0.0))
    return max(usual, own or 0.0)


def silent_s(watch: Watch) -> float:
    """While references are cached, a progress bar that redraws in place is no progress."""
    quiet = watch.quiet
    if watch.life.doing is Doing.CACHING_REF and quiet.bar_still_s is not None:
        return quiet.bar_still_s
    return quiet.silent_s


def is_active(quiet: Quiet) -> bool | None:
    """Whether the machine works; None when nobody looked at its GPUs and its processors."""
    told = (
        _above(quiet.gpu_percent, IDLE_PERCENT),
        _above(quiet.cpu_percent, IDLE_PERCENT),
        _above(quiet.disk_bytes_per_s, IDLE_BYTES_PER_S),
        _above(quiet.network_bytes_per_s, IDLE_PASSED_BYTES_PER_S),
    )
    if any(told):
        return True
    return None if None in told[:2] else False


def hang(watch: Watch, rule: Rule) -> Judgement:
    """M7 and M16."""
    silent, limit, doing = silent_s(watch), budget_s(watch), watch.life.doing
    words = f"{silent:.0f} s without a sign while in {doing}, {limit:.0f} s are usual"
    if silent <= limit:
        return judged(Verdict.PASS, words, value=silent)
    active = is_active(watch.quiet)
    if active is False:
        return judged(Verdict.FAIL, f"{words}, and the machine idles", value=silent)
    why = "the machine works" if active else "whether the machine works is not known"
    return judged(Verdict.WARN, f"{words}, but {why}", value=silent)


def spin(watch: Watch, rule: Rule) -> Judgement:
    """M12: ranks that wait in a collective keep their GPU at 100 %, as a long step does."""
    silent, limit, quiet = silent_s(watch), SPIN * budget_s(watch), watch.quiet
    percent = quiet.gpu_percent if quiet.gpu_least_percent is None else quiet.gpu_least_percent
    if percent is None:
        return judged(Verdict.UNOBSERVABLE, "nobody looked at the GPUs")
    words = f"{silent:.0f} s without a step, GPUs at {percent:.0f} %"
    spins = percent >= BUSY_PERCENT and not _above(quiet.disk_bytes_per_s, IDLE_BYTES_PER_S)
    if silent > limit and spins:
        return judged(Verdict.FAIL, f"{words}: ranks wait for one another", value=silent)
    return judged(Verdict.PASS, words, value=silent)


def _above(value: float | None, limit: float) -> bool | None:
    return None if value is None else value > limit
