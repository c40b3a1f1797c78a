"""What is measured of each step, and when it is told."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from remote.trainer.learner import StepResult
from remote.trainer.sinks import Sink


@dataclass
class Telemetry:
    """Rank 0 keeps one; the others keep the sums alone, which no sink sees.

    Speeds are those of all ranks together, over the time spent in steps (not in saves).
    `flops_per_token` and `peak_flops` (of all GPUs) give MFU; None where unknown.
    """

    max_steps: int
    every: int
    sinks: Sequence[Sink] = ()
    history: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    skipped: int = 0
    flops_per_token: float | None = None
    peak_flops: float | None = None
    _since: list[StepResult] = field(default_factory=list)
    _spent_s: float = 0.0

    def stepped(self, step: int, result: StepResult, took_s: float) -> None:
        """Note step `step` (counted from 1); tell the sinks when it is one to be logged."""
        self.tokens += result.tokens
        self.skipped += result.skipped
        self._since.append(result)
        self._spent_s += took_s
        if step % self.every == 0 or step == self.max_steps:
            self._tell(step, self._record())
            self._since, self._spent_s = [], 0.0

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        self._tell(step, dict(metrics))

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()

    def _record(self) -> dict[str, float]:
        steps = self._since
        new = sum(each.tokens for each in steps)
        record = {
            "loss": _mean([each.loss for each in steps]),
            "grad_norm": steps[-1].grad_norm,
            "learning_rate": steps[-1].learning_rate,
            "tokens": self.tokens,
            "step_s": round(self._spent_s / len(steps), 6),
            "data_s": round(sum(each.data_s for each in steps) / len(steps), 6),
            "memory_gb": round(_peak_memory_gb(), 3),
            "skipped": self.skipped,
        }
        if self._spent_s > 0:
            record["tokens_per_s"] = round(new / self._spent_s, 1)
            if self.flops_per_token and self.peak_flops:
                used = self.flops_per_token * new / self._spent_s
                record["mfu"] = round(used / self.peak_flops, 4)
        for name in steps[-1].metrics:
            known = [each.metrics[name] for each in steps if name in each.metrics]
            record[name] = _mean(known)
        return record

    def _tell(self, step: int, record: dict[str, float]) -> None:
        self.history.append({"step": step, **record})
        for sink in self.sinks:
            sink.write(step, record)


def now_s() -> float:
    """A clock that only goes forward, once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _peak_memory_gb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
