"""How each trainer prints a step, as data: a row a trainer, and the first that fits a line has it.

The patterns are those of the programs' own format strings (reference: trainer notes §3.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.signatures.numbers import NUMBER

_N = rf"({NUMBER})"


@dataclass(frozen=True)
class System:
    """How one trainer prints a step.

    A line must hold `needle` and match `line`, whose groups are named after the fields of a
    Sample. `pairs` finds further names and numbers in the matched rest; `names` says which of
    them are fields. `stepless`: the line tells no step, the next progress bar does."""

    name: str
    needle: str
    line: re.Pattern[str]
    pairs: re.Pattern[str] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    stepless: bool = False


def _row(pattern: str) -> re.Pattern[str]:
    """`N:field` in a pattern is a number that becomes that field. What lies between two fields is
    bounded: a line that repeats its beginning would be searched to its end each time."""
    return re.compile(re.sub(r"N:(\w+)", lambda found: rf"(?P<{found[1]}>{NUMBER})", pattern))


_HF_NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "epoch": "epoch",
    "num_tokens": "tokens",
    "num_input_tokens_seen": "tokens",
}
_VERL_NAMES = {
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/teacher_pg_loss": "loss",  # the warm-up's cross-entropy; a policy loss need not fall
    "perf/throughput": "tokens_per_s",
    "training/epoch": "epoch",
}
_QUOTED = re.compile(rf"'([\w/@.\- ]{{1,64}})': '?{_N}'?(?=[,}}])")
_SLASHED = re.compile(rf"(?:^| - )([\w/@.\-]{{1,64}}):(?:np\.float\d+\()?{_N}")
_EQUALS = re.compile(rf"([\w/]{{1,64}})={_N}")

GENERIC = "generic"

SYSTEMS = (
    System(
        "open-instruct",
        "Step: ",
        _row(
            r"Step: (?P<step>\d{1,15}), LR: N:learning_rate, Loss: N:loss"
            r"(?:, (?:Aux Loss: \S+, )?TPS: N:tokens_per_s)?"
        ),
    ),
    System(
        "transformers",
        "': ",
        _row(r"\{(?P<rest>'(?:loss|eval_\w+|train_runtime|train_loss)': [^{}]*\})"),
        pairs=_QUOTED,
        names=_HF_NAMES,
        stepless=True,
    ),
    System(
        "verl",
        "step:",
        _row(r"(?:^|\s)step:(?P<step>\d{1,15})(?P<rest> - .*)"),
        _SLASHED,
        _VERL_NAMES,
    ),
    System(
        "torchllms",
        "[global step ",
        _row(
            r"\[global step (?P<step>\d{1,15})/(?P<max_steps>\d{1,15})\]"
            r"(?=.{0,500}?\bloss=N:loss)(?=(?:.{0,500}?grad_norm=N:grad_norm)?)(?=(?:.{0,500}?\blr=N:learning_rate)?)"
            r"(?=(?:.{0,500}?global_train_tok/s=N:tokens_per_s)?)(?=(?:.{0,500}?total_tok=N:tokens)?)(?P<rest>.*)"
        ),
        pairs=_EQUALS,
    ),
    System(
        "torchllms",
        "[Validation]",
        _row(r"\[Validation\] Step (?P<step>\d{1,15}) (?P<rest>loss=.*)"),
        _EQUALS,
        {"loss": "eval_loss"},
    ),
    System(
        "torchtitan",
        "loss:",
        _row(
            r"step:\s*(?P<step>\d{1,15})\s+loss:\s*N:loss(?:\s+grad_norm:\s*N:grad_norm)?"
            r"(?=(?:.{0,500}?\btps:\s*N:tokens_per_s)?)(?=(?:.{0,500}?\bmfu:\s*N:mfu%)?)"
        ),
    ),
    System(
        "torchtune",
        " | ",
        _row(
            r"Step (?P<step>\d{1,15}) \|(?=.{0,500}?\bloss:N:loss)"
            r"(?=(?:.{0,500}?\blr:N:learning_rate)?)(?=(?:.{0,500}?\bgrad_norm:N:grad_norm)?)"
            r"(?=(?:.{0,500}?tokens_per_second_per_gpu:N:tokens_per_s)?)"
        ),
    ),
    System(
        "nanochat",
        "| loss:",
        _row(
            r"step (?P<step>\d{1,15})/(?P<max_steps>\d{1,15}).{0,500}?\| loss: N:loss"
            r"(?=(?:.{0,500}?tok/sec: N:tokens_per_s)?)(?=(?:.{0,500}?mfu: N:mfu)?)"
        ),
    ),
    System(
        "deepspeed",
        "skipped=",
        _row(r"\bstep=(?P<step>\d{1,15}), skipped=N:skipped, lr=\[N:learning_rate[^\]]*\]"),
    ),
    System(
        GENERIC,
        "loss",
        _row(
            r"[Ss]tep[ :]+(?P<step>\d{1,15})\W+loss\s*[=:]\s*N:loss"
            r"(?=(?:.{0,500}?\bgrad_norm\s*[=:]\s*N:grad_norm)?)"
        ),
    ),
)
