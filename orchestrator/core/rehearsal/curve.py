"""What a rehearsed attempt told of its steps, from everything it wrote, and what to make of it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from orchestrator.core.rehearsal.report import Mistake
from orchestrator.core.signatures.console import Console
from orchestrator.core.signatures.reader import Reader
from orchestrator.core.signatures.samples import Sample, merge
from orchestrator.core.signatures.structured import metrics_lines, trainer_state
from orchestrator.core.spec import Job, Phase

_FIELDS = ("loss", "grad_norm", "learning_rate", "tokens", "tokens_per_s", "epoch")


@dataclass(frozen=True)
class Told:
    """What one box of a phase has: its log, its `metrics.jsonl`, and its newest state file."""

    log: bytes = b""
    metrics: bytes = b""
    state: bytes = b""


def samples_of(told: Told) -> list[Sample]:
    """The curve, the better source first."""
    reader, console = Reader(), Console()
    printed = [*console.feed([*reader.feed(told.log), *reader.end()]), *console.end()]
    return merge(metrics_lines(told.metrics.splitlines()), trainer_state(told.state), printed)


def first_step(told: Told) -> int | None:
    """The first step that this box itself told: a state file tells of the boxes before it too."""
    reader, console = Reader(), Console()
    printed = [*console.feed([*reader.feed(told.log), *reader.end()]), *console.end()]
    for found in (metrics_lines(told.metrics.splitlines()), printed):
        steps = [each.step for each in found if each.step is not None]
        if steps:
            return steps[0]
    return None


def metrics_of(samples: Collection[Sample]) -> tuple[str, ...]:
    """The names of everything that was ever told."""
    names = {name for each in samples for name in each.values}
    names |= {name for each in samples for name in _FIELDS if each.get(name) is not None}
    return tuple(sorted(names))


def asked_metrics(phase: Phase, index: int) -> Iterator[tuple[str, str]]:
    """The keys of the job file that name a metric of this phase, and the metric."""
    gate, at = phase.gate, f"phases[{index}].gate"
    for place, each in enumerate(gate.metrics if gate else ()):
        yield f"{at}.metrics[{place}].metric", each.metric
    if gate and gate.loss_drop:
        yield f"{at}.loss_drop", "loss"


def never_written(asked: Mapping[str, str], written: Collection[str]) -> list[Mistake]:
    """A metric that a gate waits for and nobody writes: the gate could never say GO."""
    return [
        Mistake(
            key,
            f"`{metric}` was never written; the trainer told of {', '.join(written) or 'nothing'}",
            _suggested(metric, written),
        )
        for key, metric in asked.items()
        if metric not in written
    ]


def unheard(jobs: Iterable[Job], written: Collection[str]) -> Iterator[str]:
    """The user's own health rules on metrics that no phase wrote: as it is they never fire."""
    watched = {
        each.metric: f"health.rules[{place}].metric"
        for job in jobs
        for place, each in enumerate(job.health.rules)
    }
    for metric, key in watched.items():
        if metric not in written:
            yield f"that `{metric}` is written ({key}): no phase did, and the rule never fired"


def _suggested(metric: str, written: Collection[str]) -> str:
    close = difflib.get_close_matches(metric, list(written), n=1, cutoff=0.5)
    if close:
        return f"write {close[0]}"
    return "write the trainer's own name for it, or let the trainer log it within the phase"
