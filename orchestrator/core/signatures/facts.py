"""What a trainer says once and what matters later: from where it resumed, how it is distributed,
how many steps there are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Facts:
    """What was said once and matters later. None is *not said*. `skipped_in_a_row`: optimizer
    steps that were left out because a gradient was not finite, since the last one that was not."""

    resumed_from: str | None = None
    from_scratch: bool = False
    start_step: int | None = None
    distributed: str | None = None
    backend: str | None = None
    zero: bool = False
    processes: int | None = None
    total_steps: int | None = None
    has_reference: bool = False
    skipped_in_a_row: int = 0
    skipped_just_now: bool = False


_RESUMED = (
    re.compile(r"Resumed from checkpoint: (\S+)"),
    re.compile(r"Load from checkpoint folder: (\S+)"),
    re.compile(r"(Resuming training from checkpoint)"),
    re.compile(r"Resuming from (\S+)"),
)
_SCRATCH = re.compile(r"Starting from scratch|Training from scratch")
_START = re.compile(
    r"Setting global step to (\d{1,15})|Starting from epoch \d+ and step (\d{1,15})"
    r"|epoch [\d.]+ and global step (\d{1,15})|completed_steps=(\d{1,15})"
)
_DISTRIBUTED = re.compile(r"DistributedType\.(\w+)(?:\s+Backend: (\w+))?")
_PROCESSES = re.compile(r"Num processes: (\d{1,6})")
_ZERO = re.compile(
    r"Detected DeepSpeed ZeRO-3|After initializing ZeRO optimizer|DeepSpeedZeRoOffload initialize"
)
_TOTAL = re.compile(r"Total (?:optimization|training) steps\s{0,8}[=:]\s{0,8}(\d{1,15})")
_REFERENCE = re.compile(r"reference logprobs|=(?:before|after) cache logprobs")
# Not DeepSpeed's "OVERFLOW! … Skipping step": a loss scale of 2^16 is halved step by step when
# training begins, and one that cannot be halved any more ends it.
_SKIPPED = re.compile(r"grad_norm is not finite")
STEP = re.compile(
    r"(?:^|[\s\]])[Ss]tep:? ?\d+[, ]|step:\d+ - |\{'loss': |\[global step \d+/|\bstep=\d+, skipped="
)


def learn(facts: Facts, text: str) -> Facts:
    """`facts` after one line."""
    if _SCRATCH.search(text):
        facts = replace(facts, from_scratch=True)
    for pattern in _RESUMED:
        resumed = pattern.search(text)
        if resumed:
            facts = replace(facts, resumed_from=resumed[1][:300])
            break
    spread = _DISTRIBUTED.search(text)
    if spread:
        facts = replace(facts, distributed=spread[1], backend=spread[2] or facts.backend)
    if _ZERO.search(text):
        facts = replace(facts, zero=True)
    if _REFERENCE.search(text):
        facts = replace(facts, has_reference=True)
    return _count(_skips(facts, text), text)


def _skips(facts: Facts, text: str) -> Facts:
    """Programs print the warning before the step's own line: a step line without one since the
    line before it ends the row."""
    if _SKIPPED.search(text):
        return replace(facts, skipped_in_a_row=facts.skipped_in_a_row + 1, skipped_just_now=True)
    if not STEP.search(text):
        return facts
    row = facts.skipped_in_a_row if facts.skipped_just_now else 0
    return replace(facts, skipped_in_a_row=row, skipped_just_now=False)


def _count(facts: Facts, text: str) -> Facts:
    start, total, processes = _START.search(text), _TOTAL.search(text), _PROCESSES.search(text)
    if start:
        facts = replace(facts, start_step=int(next(each for each in start.groups() if each)))
    if total:
        facts = replace(facts, total_steps=int(total[1]))
    if processes:
        facts = replace(facts, processes=int(processes[1]))
    return facts
