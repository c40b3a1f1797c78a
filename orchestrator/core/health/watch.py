"""All that a rule may look at: one value, made by whoever watches the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from orchestrator.core.health.series import Point, median_step_s, points, warm_up_end
from orchestrator.core.settings import Batch
from orchestrator.core.signatures.faults import Kind
from orchestrator.core.signatures.lifecycle import Doing, Life
from orchestrator.core.signatures.samples import Sample

Method = Literal["sft", "dpo", "simpo", "gad_warmup", "gad"]


@dataclass(frozen=True)
class Gpu:
    """One look at one GPU, and what the trainer did then."""

    index: int
    percent: float
    used_gb: float
    total_gb: float
    doing: Doing = Doing.TRAIN


@dataclass(frozen=True)
class Fault:
    """A line of the log that names an error. `went_on`: steps were made after it."""

    kind: Kind
    offset: int | None
    line: str
    went_on: bool = False


@dataclass(frozen=True)
class Saved:
    """A checkpoint that the box sealed. `here`: mirrored, verified."""

    step: int | None
    here: bool = True
    final: bool = False


@dataclass(frozen=True)
class Quiet:
    """How long nothing moved, and what the machine does meanwhile; None is *not known*.

    `silent_s` counts since the last step, checkpoint write or growth of the log.
    `network_bytes_per_s` is what the trainer passed through calls that read and write: sockets
    and cached files alike. `gpu_least_percent` is of the idlest of some looks."""

    silent_s: float = 0.0
    bar_still_s: float | None = None
    gpu_percent: float | None = None
    gpu_least_percent: float | None = None
    cpu_percent: float | None = None
    disk_bytes_per_s: float | None = None
    network_bytes_per_s: float | None = None


def busiest(looks: Sequence[Quiet]) -> Quiet:
    """The newest of some looks, at a machine as busy as it was at any of them."""
    seen = [each.gpu_percent for each in looks if each.gpu_percent is not None]
    return replace(
        looks[-1],
        gpu_percent=max(seen, default=None),
        gpu_least_percent=min(seen, default=None),
        cpu_percent=_most(each.cpu_percent for each in looks),
        disk_bytes_per_s=_most(each.disk_bytes_per_s for each in looks),
        network_bytes_per_s=_most(each.network_bytes_per_s for each in looks),
    )


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


@dataclass(frozen=True)
class Rung:
    """An earlier phase of the run with the same trainer: its GPUs, the `rows` of its steps, and how
    fast each GPU was; None is *not known*, or not to be compared."""

    tokens_per_s_per_gpu: float | None = None
    rows_per_s_per_gpu: float | None = None
    rows: int | None = None
    gpus: int = 1


@dataclass(frozen=True)
class Expect:
    """What the plan says of this phase; None is *the plan says nothing*.

    `settings` are the trainer's effective settings under its own names, and `changed` those that a
    full run has otherwise than the validation that it goes on from. `improve_percent` is what the
    phase's gate asks of its evaluation."""

    method: Method | None = None
    gpus: int = 1
    start_step: int = 0
    resume_step: int | None = None
    total_steps: int | None = None
    stop_after_steps: int | None = None
    save_steps: int | None = None
    price_usd_per_hour: float | None = None
    phase_usd: float | None = None
    budget_usd: float | None = None
    hang_s: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    previous: Rung | None = None
    batch: Batch | None = None
    changed: tuple[str, ...] | None = None
    improve_percent: float | None = None


@dataclass(frozen=True)
class Watch:
    """One observation of one phase.

    `samples` are merged (`signatures.samples.merge`); `earlier` those of the attempt that this one
    resumed. `evaluated` and `baseline` are evaluations' metrics. `ended`: the trainer has.
    `watcher_errors` are our own; None: nobody counted."""

    samples: tuple[Sample, ...] = ()
    earlier: tuple[Sample, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    life: Life = field(default_factory=Life)
    faults: tuple[Fault, ...] = ()
    saved: tuple[Saved, ...] = ()
    quiet: Quiet = Quiet()
    expect: Expect = Expect()
    evaluated: Mapping[str, Any] | None = None
    baseline: Mapping[str, Any] | None = None
    spent_usd: float | None = None
    run_usd: float | None = None
    ended: bool = False
    watcher_errors: tuple[str, ...] | None = None

    @cached_property
    def losses(self) -> list[Point]:
        return points(self.samples)

    @cached_property
    def last_step(self) -> int | None:
        return max((each.step for each in self.samples if each.step is not None), default=None)

    @cached_property
    def first_step(self) -> int | None:
        return min((each.step for each in self.samples if each.step is not None), default=None)

    @property
    def reached(self) -> int:
        """Steps since this phase began."""
        return max(0, (self.last_step or 0) - self.expect.start_step)

    @cached_property
    def step_s(self) -> float | None:
        return median_step_s(self.samples)

    @cached_property
    def warm(self) -> int | None:
        """The step after which gradients and losses mean something; None: not yet.

        Without a learning rate in the log the first 20 steps are taken for the warm-up."""
        if any(sample.learning_rate is not None for sample in self.samples):
            return warm_up_end(self.samples)
        after = self.expect.start_step + 20
        return after if (self.last_step or 0) > after else None

    @property
    def goes_on(self) -> bool:
        """Whether the phase continues what an earlier one has trained: its beginning is no model
        that knows nothing, and its curve may well be flat."""
        return self.expect.start_step > 0

    @property
    def steps_are_told(self) -> bool:
        return any(sample.step is not None for sample in self.samples)
