"""All that health rules may look at, put together from what the daemon has of a phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core.evaluations import view
from orchestrator.core.health.judge import Finding
from orchestrator.core.health.judge import judge as judge_health
from orchestrator.core.health.rule import Rule, Verdict
from orchestrator.core.health.rules import RULES
from orchestrator.core.health.user import wishes
from orchestrator.core.health.watch import Expect, Fault, Method, Quiet, Rung, Saved, Watch
from orchestrator.core.phase_of import of_phase
from orchestrator.core.phases import phase_usd
from orchestrator.core.plan import PhasePlan
from orchestrator.core.run import Run, Seal
from orchestrator.core.settings import speaks_of_deepspeed
from orchestrator.core.signatures.faults import Kind
from orchestrator.core.signatures.lifecycle import Doing, Life
from orchestrator.core.signatures.samples import Sample, merge
from orchestrator.flows.logbook import Named
from orchestrator.flows.lookbook import Page

# A trainer that names an error usually ends of it, and its end says more: it is waited for.
DYING_S = 120.0
_BEFORE_TRAINING = tuple(Doing)[: tuple(Doing).index(Doing.TRAIN)]
_OF_ATTEMPT = "resume_ignored"
_OF_ENDS = ("oom", "not_distributed")
# Healthy runs of other programs, and on other machines, look so too: unless a gate asks for it,
# neither ends a run nor makes it NO-GO.
_SOFT = ("S14", "S18", "G3")
_RECENT = 50  # samples


@dataclass(frozen=True)
class Known:
    """What was read. `attempts` are the samples of each attempt of the phase, the better source
    first; `checkpoint` those that the newest checkpoint tells of its own past; `page` is of the
    newest attempt. `evaluations` are files by name. `rung` is what the rung before was."""

    attempts: Mapping[int, tuple[tuple[Sample, ...], ...]]
    checkpoint: tuple[Sample, ...] = ()
    page: Page | None = None
    evaluations: Mapping[str, Mapping[str, Any]] | None = None
    rung: Rung | None = None


def samples_of(run: Run, known: Known) -> tuple[Sample, ...]:
    """The phase's curve, of all sources. What was sealed was reached, whoever told of it."""
    every = [sources for _, sources in sorted(known.attempts.items())]
    ranked = [[s for told in same for s in told] for same in zip(*every, strict=True)]
    ranked.insert(1, list(known.checkpoint))
    start = run.phase.start_step if run.phase else 0
    sealed = [_reached(seal) for seal in of_phase(run, run.serial).seals if seal.step is not None]
    told = merge(*ranked, sorted(sealed, key=lambda each: each.step or 0))
    return tuple(each for each in told if each.step is None or each.step > start)


def findings_of(
    run: Run,
    plan: PhasePlan,
    known: Known,
    samples: tuple[Sample, ...],
    *,
    ended: bool,
    now: datetime,
) -> tuple[Finding, ...]:
    """Every rule over the phase; those on a resume over its newest attempt alone."""
    watch = watch_of(run, plan, known, samples, ended=ended, now=now)
    wanted = wishes(plan.health)
    of_phase_rules = [each for each in RULES if each.flag != _OF_ATTEMPT and _fits(each, plan, run)]
    of_attempt = [each for each in RULES if each.flag == _OF_ATTEMPT and _fits(each, plan, run)]
    found = judge_health(watch, wanted, rules=of_phase_rules)
    again = judge_health(_of_attempt(run, known, watch), replace(wanted, own=()), rules=of_attempt)
    return tuple(_softened(each, run, plan, ended=ended) for each in (*found, *again))


def watch_of(
    run: Run,
    plan: PhasePlan,
    known: Known,
    samples: tuple[Sample, ...],
    *,
    ended: bool,
    now: datetime,
) -> Watch:
    page, gate = known.page or Page(), plan.gate
    life = _life(run, known, page)
    sealed = of_phase(run, run.serial).seals
    evaluations = known.evaluations or {}
    asked = gate.evaluation if gate else None
    return Watch(
        samples=samples,
        gpus=tuple(page.gpus),
        life=life,
        faults=_faults(run, page, samples),
        saved=tuple(_saved(run, each) for each in sealed),
        quiet=_quiet(run, plan, page),
        expect=replace(_expect(run, plan, samples, life), previous=known.rung),
        evaluated=evaluations.get(asked.file) if asked else None,
        baseline=evaluations.get(asked.baseline) if asked else None,
        spent_usd=phase_usd(run, now),
        run_usd=run.spent_usd(now),
        ended=ended,
    )


def evaluations_of(
    plan: PhasePlan, files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """The files that the gate asks after, as it reads them."""
    asked = plan.gate.evaluation if plan.gate else None
    if asked is None:
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    if asked.baseline in files:
        found[asked.baseline] = view(files[asked.baseline], asked.metric, "baseline")
    if asked.file in files:
        found[asked.file] = view(files[asked.file], asked.metric, "file")
    return found


def _expect(run: Run, plan: PhasePlan, samples: tuple[Sample, ...], life: Life) -> Expect:
    phase, attempt, instance = run.phase, run.attempt, run.instance
    train: Mapping[str, Any] = plan.train or {}
    args: Mapping[str, Any] = train.get("args") or {}
    total = max((each.max_steps or 0 for each in samples), default=0) or None
    until = phase.until_step if phase else None
    ends = [each for each in (total, until) if each]
    cost = plan.gate.cost if plan.gate else None
    evaluation = plan.gate.evaluation if plan.gate else None
    return Expect(
        method=_method(train) or _method_seen(samples, life),
        gpus=_ranks(run, plan),
        start_step=phase.start_step if phase else 0,
        resume_step=attempt.resume.step if attempt and attempt.resume else None,
        total_steps=min(ends, default=None),
        stop_after_steps=plan.stop_after_steps,
        save_steps=_whole(args.get("save_steps")),
        price_usd_per_hour=instance.price_usd_per_hour if instance else None,
        phase_usd=cost.usd if cost else None,
        budget_usd=run.limits.budget_usd,
        hang_s=plan.hang_s,
        settings={**args, **(train.get("gad") or {}), "gpus": _ranks(run, plan)} if train else {},
        batch=plan.batch,
        changed=plan.changed,
        improve_percent=evaluation.improve_percent if evaluation else None,
    )


def _method(train: Mapping[str, Any]) -> Method | None:
    method: Method | None = train.get("method")
    stage = (train.get("gad") or {}).get("stage", "warmup")
    return "gad_warmup" if method == "gad" and stage == "warmup" else method


def _method_seen(samples: tuple[Sample, ...], life: Life) -> Method | None:
    """Of a program of the user's own, by what it tells: a stage that has a discriminator and a
    loss beside is the warm-up, and a reference is cached for preferences alone."""
    recent = samples[-_RECENT:]
    if any("critic/d_loss" in each.values for each in recent):
        return "gad_warmup" if any(each.loss is not None for each in recent) else "gad"
    return "dpo" if life.facts.has_reference else None


def _ranks(run: Run, plan: PhasePlan) -> int:
    attempt = run.attempt
    box = run.find_instance(attempt.instance) if attempt else run.instance
    counts = [offer.count for offer in plan.offers if box and offer.id == box.offer]
    return max(1, counts[0] if counts else 1)


def _life(run: Run, known: Known, page: Page) -> Life:
    """A trainer that tells its steps elsewhere need not print any."""
    life = page.log.life if page.log else Life()
    mine = known.attempts.get(run.attempt.number, ()) if run.attempt else ()
    trains = any(sample.step is not None for source in mine for sample in source)
    is_early = life.doing in _BEFORE_TRAINING
    return replace(life, doing=Doing.TRAIN) if is_early and trains else life


def _faults(run: Run, page: Page, samples: tuple[Sample, ...]) -> tuple[Fault, ...]:
    """What the running trainer named and outlived; what it ended of, when it has; and, as one each,
    what the attempts before it ended of."""
    attempt = run.attempt
    before = [each for each in run.phase_attempts if each.why == "oom" and each is not attempt]
    ends = [Fault(Kind.GPU_OOM, None, each.message) for each in before]
    named = page.log.faults if page.log else []
    is_over = attempt is None or not attempt.live
    lived = [each for each in named if is_over or _outlived(each, page)]
    told = [replace(each.fault, went_on=_went_on(each, page, samples)) for each in lived]
    return (*told, *ends)


def _went_on(named: Named, page: Page, samples: tuple[Sample, ...]) -> bool:
    """Whether steps were made after it: not the one that was on its way, and not that of a rank
    which had not heard yet. Places in its own log alone can be compared with its place."""
    offset, at = named.fault.offset, named.at
    printed = page.log.samples if page.log else ()
    if offset is not None and sum((each.offset or 0) > offset for each in printed) > 1:
        return True
    late = at + timedelta(seconds=DYING_S) if at else None
    return late is not None and any(each.at is not None and each.at > late for each in samples)


def _outlived(named: Named, page: Page) -> bool:
    if page.looked_at is None or named.at is None:
        return False
    return page.looked_at - named.at >= timedelta(seconds=DYING_S)


def _saved(run: Run, seal: Seal) -> Saved:
    return Saved(seal.step, here=seal.digest in run.mirrored, final=seal.final)


def _quiet(run: Run, plan: PhasePlan, page: Page) -> Quiet:
    """Only while a trainer runs. A machine without GPUs has none at work."""
    attempt = run.attempt
    if page.quiet is None or attempt is None or not attempt.live or attempt.stopping_at:
        return Quiet()
    box = run.find_instance(attempt.instance)
    is_cpu = any(offer.gpu == "cpu" and offer.id == box.offer for offer in plan.offers)
    return replace(page.quiet, gpu_percent=0.0) if is_cpu else page.quiet


def _of_attempt(run: Run, known: Known, watch: Watch) -> Watch:
    """The newest attempt by itself. Programs that count from 0 say the checkpoint's own step
    again: that step proves nothing, either way."""
    attempt = run.attempt
    number = attempt.number if attempt else 0
    begin = watch.expect.resume_step
    numbers = sorted(each for each in known.attempts if each < number)
    mine = merge(*known.attempts.get(number, ()))
    earlier = merge(*known.attempts[numbers[-1]]) if numbers else []
    resumed = attempt is not None and begin is not None
    return replace(
        watch,
        samples=tuple(each for each in mine if not resumed or each.step != begin),
        earlier=tuple(earlier) if resumed else (),
        ended=False,
    )


def _fits(rule: Rule, plan: PhasePlan, run: Run) -> bool:
    """Rules that presume a program: they would end healthy runs of others. A gate that names one
    has it judged."""
    if _is_required(plan, rule):
        return True
    if rule.id == "M10":
        return _ranks(run, plan) > 1 and _asks_for_deepspeed(plan)
    if rule.id == "G10":
        return plan.checkpoints.layout == "verl"
    if rule.flag == _OF_ATTEMPT and rule.id in ("M23", "S18"):
        return _is_told_to_resume(plan)
    return True


def _is_required(plan: PhasePlan, rule: Rule | Finding) -> bool:
    name = rule.id if isinstance(rule, Rule) else rule.rule
    return bool(plan.gate and {name, rule.flag, *rule.also} & set(plan.gate.require))


def _is_told_to_resume(plan: PhasePlan) -> bool:
    resume = plan.checkpoints.resume
    return bool(
        plan.train or resume.args or resume.env or resume.place or "{checkpoint}" in plan.command
    )


def _asks_for_deepspeed(plan: PhasePlan) -> bool:
    """Who installs it need not use it."""
    texts = (plan.command, *(each.text for each in plan.patch))
    return bool((plan.train or {}).get("deepspeed")) or any(map(speaks_of_deepspeed, texts))


def _softened(found: Finding, run: Run, plan: PhasePlan, *, ended: bool) -> Finding:
    """What a trainer has ended of, its exit says, and how often that is tried again."""
    attempt = run.attempt
    is_tried_again = attempt is not None and not attempt.live and not ended
    if is_tried_again and found.flag in _OF_ENDS and found.verdict is Verdict.FAIL:
        found = replace(found, verdict=Verdict.WARN)
        return replace(found, action="warn") if found.action == "stop" else found
    is_soft = found.rule in _SOFT and not _is_required(plan, found)
    if is_soft and found.verdict is Verdict.FAIL:
        return replace(found, verdict=Verdict.WARN, action="warn")
    return found


def _reached(seal: Seal) -> Sample:
    return Sample("checkpoint", seal.step, max_steps=seal.max_steps)


def _whole(value: Any) -> int | None:
    """A fraction means a part of the run, which is not known here."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
