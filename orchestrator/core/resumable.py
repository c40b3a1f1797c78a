"""Whether our own trainer can go on from what an earlier phase leaves: it refuses what it cannot,
and that is known before a second machine is paid for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core.plan import PhasePlan
from remote.trainer.args import Args

# Another value is another run (docs/trainer.md, "Refused"); ranks are none of them.
SAME = (
    *("method", "model", "template", "data", "lora", "qlora", "full", "max_seq_length"),
    *("packing", "loss_reduction"),
)
SAME_ARGS = ("bf16", "fp16", "seed", "data_seed")


def resume_problems(phases: Sequence[PhasePlan]) -> list[str]:
    """Names every phase that could not resume, and what to change in it."""
    known = {phase.name: phase for phase in phases}
    return [
        problem
        for phase in phases
        if phase.start and phase.start.how == "resume" and phase.train is not None
        for problem in _problems(phase, known.get(phase.start.phase), known)
    ]


def _problems(
    phase: PhasePlan, before: PhasePlan | None, known: Mapping[str, PhasePlan]
) -> Iterator[str]:
    """Of a phase of an earlier run nothing is known here: the trainer says it."""
    if phase.start and phase.start.checkpoint == "final":
        yield f"phase {phase.name}: our trainer cannot resume `final`, which is weights alone"
        return
    if before is None:
        return
    if before.train is None:
        yield f"phase {phase.name}: our trainer cannot resume what {before.name}'s command saves"
        return
    yield from _differing(phase, before)
    yield from _shares(phase, before, known)


def _differing(phase: PhasePlan, before: PhasePlan) -> Iterator[str]:
    one, other = before.train or {}, phase.train or {}
    for key in SAME:
        if one.get(key) != other.get(key):
            yield f"phase {phase.name}: train.{key} differs from that of {before.name}"
    for key in SAME_ARGS:
        if _arg(one, key) != _arg(other, key):
            yield f"phase {phase.name}: train.args.{key} differs from that of {before.name}"


def _shares(phase: PhasePlan, before: PhasePlan, known: Mapping[str, PhasePlan]) -> Iterator[str]:
    """The batch stays that of the checkpoint, and each rank has an equal share of it."""
    asked = _arg(phase.train or {}, "global_batch_size")
    for batch in sorted(_batches(before, known)):
        if asked is not None and asked != batch:
            yield (
                f"phase {phase.name}: train.args.global_batch_size is {asked}, and {before.name} "
                f"trains with {batch} sequences a step, which a resume keeps"
            )
            return
        for ranks in sorted({offer.count for offer in phase.offers}):
            if batch % ranks:
                yield (
                    f"phase {phase.name}: {ranks} GPUs cannot share the {batch} sequences a step "
                    f"of {before.name} equally; change its resources.gpu, or the batch of "
                    f"{before.name} (train.args.global_batch_size)"
                )


def _batches(phase: PhasePlan, known: Mapping[str, PhasePlan]) -> set[int]:
    """What a step of this phase may hold: one number for each of the machines it may get, and the
    one of the phase that it resumes."""
    train, start = phase.train or {}, phase.start
    held = known.get(start.phase) if start and start.how == "resume" else None
    if held is not None and held.train is not None:
        return _batches(held, known)
    asked = _arg(train, "global_batch_size")
    if asked is not None:
        return {int(asked)}
    rows = _arg(train, "per_device_train_batch_size") * _arg(train, "gradient_accumulation_steps")
    return {int(rows) * offer.count for offer in phase.offers}


def _arg(train: Mapping[str, Any], name: str) -> Any:
    return (train.get("args") or {}).get(name, getattr(Args, name, None))
