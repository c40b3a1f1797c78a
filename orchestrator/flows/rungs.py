"""The rung before: an earlier phase of the run that the same trainer climbed on other GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.health.machine import rows_per_gpu, tokens_per_gpu
from orchestrator.core.health.watch import Expect, Rung, Watch
from orchestrator.core.offer import Offer
from orchestrator.core.plan import PhasePlan, Plan
from orchestrator.core.run import Attempt, Run
from orchestrator.core.signatures.samples import Sample


def rung_before(run: Run, plan: Plan) -> int | None:
    """Which of the phases that have begun it is: the newest other one of the same trainer."""
    if run.phase is None:
        return None
    now = run.phase.index
    for serial in range(run.serial - 1, -1, -1):
        index = run.phases[serial].index
        is_same = _trainer(plan.phases[index]) == _trainer(plan.phases[now])
        if index != now and is_same and attempts_of(run, serial):
            return serial
    return None


def attempts_of(run: Run, serial: int) -> tuple[Attempt, ...]:
    return tuple(each for each in run.attempts if each.phase == serial)


def rung_of(run: Run, plan: Plan, serial: int, samples: Sequence[Sample]) -> Rung | None:
    """What that phase was, by the `samples` of its newest attempt. Another kind of GPU has another
    speed: then it is not told."""
    phase = plan.phases[run.phases[serial].index]
    offer, now = _offer(run, phase, serial), _offer(run, _phase_now(run, plan), run.serial)
    if offer is None:
        return None
    rows = phase.batch.rows(offer.count) if phase.batch else None
    if now is None or now.gpu != offer.gpu:
        return Rung(rows=rows, gpus=offer.count)
    seen = Watch(samples=tuple(samples), expect=Expect(gpus=offer.count))
    return Rung(tokens_per_gpu(samples, offer.count), rows_per_gpu(seen, rows), rows, offer.count)


def _phase_now(run: Run, plan: Plan) -> PhasePlan:
    return plan.phases[run.phase.index if run.phase else 0]


def _offer(run: Run, phase: PhasePlan, serial: int) -> Offer | None:
    """What its newest attempt ran on."""
    mine = attempts_of(run, serial)
    if not mine:
        return None
    box = run.find_instance(mine[-1].instance)
    return next((offer for offer in phase.offers if offer.id == box.offer), None)


def _trainer(phase: PhasePlan) -> tuple[object, ...]:
    train = phase.train or {}
    return (phase.command, train.get("method"), train.get("model"), train.get("gad"))
