"""Rules on the machine: memory, GPUs, speed, ranks that find one another."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from orchestrator.core.health.rule import Judgement, Rule, Verdict, judged
from orchestrator.core.health.series import step_times
from orchestrator.core.health.watch import Gpu, Rung, Watch
from orchestrator.core.signatures.faults import Kind
from orchestrator.core.signatures.lifecycle import Doing
from orchestrator.core.signatures.samples import Sample

# `Sample.tokens_per_s` of these is a GPU's, not of all ranks.
_TOLD_PER_GPU = frozenset({"verl", "torchtitan", "torchtune"})
_INIT = (Kind.CONFIG, Kind.WORLD_SIZE, Kind.CHECKPOINT_WRITER)


def out_of_memory(watch: Watch, rule: Rule) -> Judgement:
    """M4 and S16."""
    return _fault(watch, (Kind.GPU_OOM,), "no memory error in the log")


def often_out_of_memory(watch: Watch, rule: Rule) -> Judgement:
    """F5: the next rung of the ladder is due."""
    found = [fault for fault in watch.faults if fault.kind is Kind.GPU_OOM]
    many = len(found) >= rule.limits["times"]
    words = f"{len(found)} memory errors in this phase"
    return judged(Verdict.WARN if many else Verdict.PASS, words, value=len(found))


def starts_distributed(watch: Watch, rule: Rule) -> Judgement:
    """M13: an error of the set-up before the first step."""
    if watch.steps_are_told:
        return judged(Verdict.PASS, f"step {watch.first_step} was done")
    return _fault(watch, _INIT, "no step yet", otherwise=Verdict.INCONCLUSIVE)


def zero_is_on(watch: Watch, rule: Rule) -> Judgement:
    """M10, by the lines that programs really print; the one in the users' document is printed by
    none. ZeRO's own come minutes after the one that says DEEPSPEED; at some log levels never."""
    facts, gpus = watch.life.facts, watch.expect.gpus
    not_yet = Verdict.UNOBSERVABLE if watch.steps_are_told else Verdict.INCONCLUSIVE
    if facts.distributed is None:
        return judged(not_yet, "the trainer does not say how it is distributed")
    words = f"{facts.distributed}, {facts.processes or '?'} processes, {gpus} GPUs"
    if gpus == 1:
        good = facts.distributed == "NO"
        return judged(Verdict.PASS if good else Verdict.FAIL, words)
    if facts.distributed != "DEEPSPEED" or facts.processes not in (None, gpus):
        return judged(Verdict.FAIL, words)
    if not facts.zero:
        return judged(not_yet, f"{words}, and no line of ZeRO")
    return judged(Verdict.PASS, f"{words}, ZeRO on")


def ranks_meet(watch: Watch, rule: Rule) -> Judgement:
    """M11: NCCL prints nothing when it works, so the first step of all ranks is the evidence."""
    fault = _fault(watch, (Kind.NCCL,), "")
    if fault[0] is Verdict.FAIL:
        return fault
    processes = watch.life.facts.processes
    if not watch.steps_are_told:
        return judged(Verdict.INCONCLUSIVE, "no step yet")
    if processes is not None and processes != watch.expect.gpus:
        words = f"{processes} processes stepped, {watch.expect.gpus} GPUs are paid for"
        return judged(Verdict.FAIL if processes == 1 else Verdict.WARN, words, value=processes)
    return judged(Verdict.PASS, f"step {watch.first_step} of all ranks was done")


def runs_fast(watch: Watch, rule: Rule) -> Judgement:
    """M8 and S7: against the run itself, from the steps' own times. A printed rate may be an
    average since the start (open-instruct's is)."""
    rates = [s.tokens_per_s for s in watch.samples if s.tokens_per_s is not None]
    if rates and rates[-1] == 0:
        return judged(Verdict.FAIL, "0 tokens/s", value=0.0)
    times = step_times(watch.samples)
    if len(times) >= rule.limits["points"]:
        usual = statistics.median(value for _, value in times)
        now = statistics.median(value for _, value in times[-5:])
        words = f"{now:.2f} s a step, {usual:.2f} s is its median"
        slow = usual < rule.limits["part"] * now
        if slow:
            window = (times[-5][0], times[-1][0])
            return judged(Verdict.WARN, words, value=usual / now, window=window)
    if rates:
        return judged(Verdict.PASS, f"{rates[-1]:.0f} tokens/s", value=rates[-1])
    if times:
        return judged(Verdict.PASS, "steps come at their usual pace")
    verdict = Verdict.UNOBSERVABLE if watch.steps_are_told else Verdict.INCONCLUSIVE
    return judged(verdict, "no speed and no times were told")


def scales(watch: Watch, rule: Rule) -> Judgement:
    """M8: a GPU's share against the rung before; 49 % and 38 % were measured on a real ladder."""
    expect, before = watch.expect, watch.expect.previous or Rung()
    rows = expect.batch.rows(expect.gpus) if expect.batch else None
    now = (tokens_per_gpu(watch.samples, expect.gpus), rows_per_gpu(watch, rows))
    then = (before.tokens_per_s_per_gpu, before.rows_per_s_per_gpu)
    for what, mine, theirs in zip(("tokens", "rows"), now, then, strict=True):
        if mine is not None and theirs:
            part = mine / theirs
            words = f"{100 * part:.0f} % of the {what}/s that each GPU did on the rung before"
            verdict = Verdict.WARN if part < rule.limits["part"] else Verdict.PASS
            return judged(verdict, words, value=part)
    return judged(Verdict.UNOBSERVABLE, "the speeds of the two rungs cannot be compared")


def tokens_per_gpu(samples: Sequence[Sample], gpus: int) -> float | None:
    """Tokens a second and GPU, the median of the newest; some programs tell it so."""
    rates = [
        each.tokens_per_s / (1 if each.source in _TOLD_PER_GPU else gpus)
        for each in samples
        if each.tokens_per_s
    ]
    return statistics.median(rates[-20:]) if rates else None


def rows_per_gpu(watch: Watch, rows: int | None) -> float | None:
    """The same of rows, from the pace of the steps."""
    return rows / watch.step_s / watch.expect.gpus if rows and watch.step_s else None


def gpus_work(watch: Watch, rule: Rule) -> Judgement:
    """F2, S8, S14: the median while steps are made, of all GPUs and of each."""
    busy = _training(watch)
    if _looks(busy) < rule.window:
        return judged(Verdict.INCONCLUSIVE, f"{_looks(busy)} looks while training")
    middle, slowest, index = _medians(busy)
    words = f"median {middle:.0f} %, GPU {index} {slowest:.0f} %"
    if middle < rule.limits["low"] or slowest < rule.limits["each"]:
        verdict = Verdict.FAIL if rule.limits["hard"] else Verdict.WARN
        return judged(verdict, words, value=middle)
    return judged(Verdict.PASS, words, value=middle)


def gpus_woke(watch: Watch, rule: Rule) -> Judgement:
    """S19: counted from the first step. Counted from the process's start, as in the users' script,
    it would delete an instance that still tokenises."""
    busy = _training(watch)
    if not watch.steps_are_told or _looks(busy) < rule.window:
        return judged(Verdict.INCONCLUSIVE, f"{_looks(busy)} looks since the first step")
    highest = max(each.percent for each in busy)
    words = f"never above {highest:.0f} % since the first step"
    woke = highest > rule.limits["above"]
    return judged(Verdict.PASS if woke else Verdict.WARN, words, value=highest)


def memory_fits(watch: Watch, rule: Rule) -> Judgement:
    """S15, relative: the 60 to 70 GB of the users' document do not exist on its 40 GB cards."""
    parts = [each.used_gb / each.total_gb for each in watch.gpus if each.total_gb > 0]
    if not parts:
        return judged(Verdict.UNOBSERVABLE, "no GPU tells its memory")
    part = max(parts)
    tight = part > rule.limits["part"]
    words = f"{100 * part:.0f} % of a GPU's memory at most"
    return judged(Verdict.WARN if tight else Verdict.PASS, words, value=part)


def memory_is_free(watch: Watch, rule: Rule) -> Judgement:
    """M9: a rung that was stopped must be gone before the next one begins."""
    after = [each for each in watch.gpus if each.doing is Doing.DONE]
    if not after:
        return judged(Verdict.INCONCLUSIVE, "nobody looked since the trainer ended")
    newest = {each.index: each.used_gb for each in after}
    held = max(newest.values())
    words = f"{held:.1f} GB of a GPU are still taken"
    return judged(Verdict.FAIL if held > rule.limits["gb"] else Verdict.PASS, words, value=held)


def watcher_works(watch: Watch, rule: Rule) -> Judgement:
    """S17: our own daemon's errors."""
    if watch.watcher_errors is None:
        return judged(Verdict.UNOBSERVABLE, "nobody counts them")
    if watch.watcher_errors:
        return judged(Verdict.FAIL, watch.watcher_errors[-1][:200])
    return judged(Verdict.PASS, "watched without an error")


def _fault(
    watch: Watch, kinds: tuple[Kind, ...], words: str, *, otherwise: Verdict = Verdict.PASS
) -> Judgement:
    """One that steps came after was somebody else's, or was caught."""
    faults = [fault for fault in watch.faults if fault.kind in kinds]
    found = next((fault for fault in faults if not fault.went_on), None)
    if found:
        return judged(Verdict.FAIL, f"{found.kind}: {found.line[:200]}", offset=found.offset)
    if not faults:
        return judged(otherwise, words)
    words = f"{faults[0].kind}: {faults[0].line[:200]}; steps came after it"
    return judged(Verdict.WARN, words, offset=faults[0].offset)


def _training(watch: Watch) -> list[Gpu]:
    return [each for each in watch.gpus if each.doing is Doing.TRAIN]


def _looks(busy: list[Gpu]) -> int:
    """At the GPU that was looked at least."""
    each = Counter(gpu.index for gpu in busy)
    return min(each.values(), default=0)


def _medians(busy: list[Gpu]) -> tuple[float, float, int]:
    each = {
        index: statistics.median(gpu.percent for gpu in busy if gpu.index == index)
        for index in {gpu.index for gpu in busy}
    }
    slowest = min(each, key=lambda index: (each[index], index))
    return statistics.median(gpu.percent for gpu in busy), each[slowest], slowest
