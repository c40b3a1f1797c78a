"""The rules of an eight-GPU ladder: a sanity run, two GPUs, eight (ids M).

docs/health.md has where each threshold comes from."""

from __future__ import annotations

from orchestrator.core.health import gradients, loss, machine, preflight, progress, silence, when
from orchestrator.core.health.rule import Rule, Verdict
from orchestrator.core.signatures.lifecycle import Doing

_WARN = Verdict.WARN
_LAST_LOOK = 200

ROWS = (
    Rule(
        "M5",
        "nan",
        "the loss and the gradient are numbers",
        loss.not_a_number,
        needs=("loss|grad_norm|actor/pg_loss|critic/d_loss",),
        advice="lower the learning rate, look at the data; the last good checkpoint is kept",
    ),
    Rule(
        "M4",
        "oom",
        "the GPU has memory enough",
        machine.out_of_memory,
        also=("S16",),
        advice="one rung of the memory ladder, then restart",
    ),
    Rule(
        "M1",
        "loss_flat",
        "the loss is below its beginning",
        loss.fell_at_all,
        also=("F1",),
        needs=("loss",),
        only=when.falls,
        window=100,
        limits={"last_look": _LAST_LOOK},
        advice="learning rate 2e-5 to 5e-5, a shorter warm-up; is anything trained at all?",
    ),
    Rule(
        "M2",
        "loss_flat",
        "the loss falls by a tenth",
        loss.fell_enough,
        needs=("loss",),
        only=when.falls,
        window=100,
        limits={"percent": 10, "last_look": _LAST_LOOK},
        advice="do not take more GPUs yet",
    ),
    Rule(
        "M3",
        "loss_flat",
        "the loss does not rise",
        loss.trend,
        needs=("loss",),
        only=when.falls,
        window=100,
        limits={"last_look": _LAST_LOOK},
        advice="a lower learning rate",
    ),
    Rule(
        "M6",
        "grad_explosion",
        "the gradient has a usual size",
        gradients.norm,
        needs=("grad_norm",),
        window=20,
        limits={"low": 0.1, "high": 10, "fail_above": 1000, "fail_in_warm_up": 100_000},
        advice="add gradient clipping",
    ),
    Rule("M7", "hang", "it moves", silence.hang, also=("M16",), advice="look at the dump"),
    Rule(
        "M12",
        "hang",
        "ranks do not wait for one another",
        silence.spin,
        during=frozenset({Doing.TRAIN}),
        only=when.on_many,
        advice="look at the dump: which rank is not in the collective?",
    ),
    Rule(
        "M8",
        "slow",
        "it is as fast as it was",
        machine.runs_fast,
        limits={"part": 0.5, "points": 10},
        acts=_WARN,
        advice="data loading, a throttled GPU, or another tenant",
    ),
    Rule(
        "M8b",
        "slow",
        "more GPUs do more",
        machine.scales,
        only=when.is_larger,
        limits={"part": 0.6},
        acts=_WARN,
        advice="a larger micro-batch and less accumulation: ZeRO-3 gathers at every micro-step",
    ),
    Rule(
        "M9",
        "checkpoint_missing",
        "a stopped rung is gone",
        machine.memory_is_free,
        only=lambda watch: watch.ended and bool(watch.gpus),
        limits={"gb": 1.0},
        advice="end what is left by its pid before the next rung",
    ),
    Rule("M10", "not_distributed", "ZeRO is on where it should be", machine.zero_is_on),
    Rule("M11", "not_distributed", "all ranks step", machine.ranks_meet, only=when.on_many),
    Rule(
        "M13", "not_distributed", "DeepSpeed starts", machine.starts_distributed, only=when.on_many
    ),
    Rule(
        "M17",
        "recipe",
        "preferences begin undecided",
        loss.starts_at_ln2,
        needs=("loss",),
        only=when.methods("dpo", "simpo"),
        limits={"low": 0.5, "high": 1.5, "fail_above": 10, "tolerance": 0.01},
        acts=_WARN,
        advice="the reference is not the policy: a stale cache of reference log-probabilities?",
    ),
    Rule(
        "M18",
        "recipe",
        "preferences are learnt",
        gradients.preferences,
        needs=("rewards/accuracies|rewards/accuracy",),
        only=when.methods("dpo", "simpo"),
        window=50,
        limits={"chance": 0.05},
        advice="a higher learning rate or beta; are chosen and rejected swapped?",
    ),
    Rule("M19", "recipe", "what must be watched is logged", gradients.is_observed),
    Rule(
        "M21",
        "recipe",
        "rungs have one batch",
        preflight.batch,
        only=lambda watch: watch.expect.previous is not None and watch.expect.batch is not None,
        acts=_WARN,
    ),
    Rule(
        "M22",
        "over_cost",
        "the phase costs what it was to",
        progress.phase_cost,
        only=lambda watch: watch.expect.phase_usd is not None and watch.spent_usd is not None,
        limits={"times": 2.0},
    ),
    Rule(
        "M23",
        "resume_ignored",
        "it resumed",
        progress.resumed,
        only=when.resumes,
        advice="is {resume} in `run`, and does the program keep its folder (open-instruct:"
        " do_not_randomize_output_dir: true)?",
    ),
)
