"""`train:` in a job file is what the trainer reads: the same keys, the same defaults, and nothing
that one of them takes and the other refuses."""
# ruff: noqa: E501 (a row of a table is one line)

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from orchestrator.core.spec import JobFileError, parse_job, training
from orchestrator.errors import BadJobFile
from remote.trainer import settings, settings_gad
from remote.trainer.args import Args

JOB = "name: demo\ncheckpoints: {{path: out}}\ntrain: {{method: {method}, model: m, data: d.jsonl{more}}}\n"
MODELS = {
    "lora": (training.Lora, settings.Lora),
    "dpo": (training.Dpo, settings.Dpo),
    "simpo": (training.Simpo, settings.Simpo),
    "gad": (training.Gad, settings_gad.Gad),
    "evaluate": (training.Evaluate, settings.Evaluation),
}
# Job file: rank, files. What the trainer calls otherwise, or derives.
RENAMED = {"r": "rank", "files": "data", "four_bit": None}


def read(text: str) -> settings.Settings:
    """What the box makes of the job: the record is what its plan holds and `prepare` sends."""
    train = parse_job(text.encode(), file="f.yaml", base=Path()).train
    assert train is not None
    return settings.parse(json.loads(json.dumps(training.record_of(train))))


def told(text: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        parse_job(text.encode(), file="f.yaml", base=Path())
    return [str(problem) for problem in caught.value.problems]


def test_the_keys_are_the_trainers() -> None:
    assert set(training.Train.model_fields) == set(settings.KEYS)
    for key, (model, theirs) in MODELS.items():
        names = [RENAMED.get(each.name, each.name) for each in dataclasses.fields(theirs)]
        assert set(model.model_fields) == {name for name in names if name}, key


def test_the_defaults_are_the_trainers() -> None:
    for method in settings.METHODS:
        plain = read(JOB.format(method=method, more=", lora: true"))
        spelt = ", lora: {}" + (f", {method}: {{}}" if method != "sft" else "")
        assert read(JOB.format(method=method, more=spelt)) == plain
        assert plain == settings.parse(
            {"method": method, "model": "m", "data": "d.jsonl", "lora": True}
        )


def test_the_words_are_the_trainers() -> None:
    def words(model: Any, key: str) -> tuple[str, ...]:
        return typing.get_args(model.model_fields[key].annotation)

    assert words(training.Train, "method") == settings.METHODS
    assert words(training.Train, "loss_reduction") == settings.REDUCTIONS
    assert words(training.Gad, "stage") == settings_gad.STAGES


GAD = "stage: adversarial, warmup_from: warm, rollouts: 4, temperature: 0.7, max_new_tokens: 64, rollout_batch: 8, critic_warmup: 0, critic_learning_rate: 1e-5, kl: 0, clip: 0.1, dual_clip: 2, updates: 2, shuffle_rewards: true"
ACCEPTED = [
    ("sft", ", full: true, packing: true, loss_reduction: sequences", lambda t: (t.packing, t.loss_reduction, t.lora) == (True, "sequences", None)),
    ("sft", ", qlora: {rank: 8, alpha: 16, dropout: 0.1, modules_to_save: lm_head}", lambda t: t.lora == settings.Lora(8, 16, 0.1, modules_to_save=("lm_head",), four_bit=True)),
    ("sft", ", lora: {target_modules: [q_proj]}", lambda t: t.lora.target_modules == ("q_proj",)),
    ("sft", ", lora: true, max_seq_length: 4096", lambda t: t.max_seq_length == 4096),
    ("sft", ", lora: true, deepspeed: {zero_optimization: {stage: 3, offload_param: {device: cpu}}}", lambda t: t.deepspeed["zero_optimization"]["stage"] == 3),
    ("sft", ", lora: true, evaluate: {data: e.jsonl}", lambda t: t.evaluation == settings.Evaluation(("e.jsonl",))),
    ("sft", ", lora: true, evaluate: {data: [e, f], every: 5, max_examples: 9}", lambda t: t.evaluation == settings.Evaluation(("e", "f"), 5, 9)),
    ("sft", ", full: true, args: {gradient_checkpointing: true, use_liger_kernel: true, bf16: true}", lambda t: t.args.gradient_checkpointing and t.args.use_liger_kernel and t.args.bf16),
    ("sft", ", full: true, args: {report_to: [tensorboard, wandb], run_name: x, logging_steps: 5}", lambda t: t.args.report_to == ("tensorboard", "wandb")),
    ("sft", ", full: true, args: {report_to: none, push_to_hub: false, disable_tqdm: true}", lambda t: t.args.report_to == ()),
    ("sft", ", full: true, args: {optim: paged_adamw_8bit, global_batch_size: 64, schedule_steps: 100}", lambda t: (t.args.optim, t.args.global_batch_size) == ("paged_adamw_8bit", 64)),
    ("sft", ", full: true, args: {lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: {min_lr: 1e-6}}", lambda t: t.args.lr_scheduler_kwargs == {"min_lr": 1e-6}),
    ("dpo", ", lora: true, dpo: {beta: 5, norm: true, label_smoothing: 0.1}", lambda t: t.dpo == settings.Dpo(5, 0.1, True)),
    ("simpo", ", full: true, simpo: {beta: 2.5, gamma_beta_ratio: 0}", lambda t: t.simpo == settings.Simpo(2.5, 0)),
    ("gad", f", lora: true, gad: {{{GAD}}}", lambda t: t.gad == settings_gad.Gad("adversarial", 4, 0.7, 64, 0, 1e-5, 0, 0.1, 2, 2, 8, True, Path("warm"))),
    ("gad", ", full: true", lambda t: (t.gad.critic_warmup, t.args.max_grad_norm) == (10, 0.2)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "more", "holds"), ACCEPTED, ids=[f"{m}{t}" for m, t, _ in ACCEPTED]
)
def test_what_a_job_says_reaches_the_trainer(method: str, more: str, holds: Any) -> None:
    assert holds(read(JOB.format(method=method, more=more)))


def test_the_files_of_a_job_are_looked_for_on_the_box_alone() -> None:
    text = JOB.format(method="sft", more=", lora: true, template: t.jinja, deepspeed: zero2.json")
    train = parse_job(text.encode(), file="f.yaml", base=Path()).train
    assert train is not None
    assert (train.template, train.deepspeed) == ("t.jinja", "zero2.json")


REFUSED = [
    ("sft", ", lora: true, dpo: {beta: 1}", "dpo: is for method dpo; the method is sft"),
    ("dpo", ", lora: true, dpo: {beta: 0}", "dpo.beta: must be greater than 0"),
    ("dpo", ", lora: true, dpo: {label_smoothing: 0.5}", "dpo.label_smoothing: must be less than 0.5"),
    ("dpo", ", lora: true, dpo: {betta: 1}", "dpo.betta: unknown key; did you mean beta?"),
    ("dpo", ", lora: true, packing: true", "packing: only for sft; nothing is padded in the other methods anyway"),
    ("dpo", ", lora: true, loss_reduction: sequences", "loss_reduction: only for sft; preferences are a mean over pairs"),
    ("dop", ", lora: true, dpo: {beta: 1}", "method: must be 'sft', 'dpo', 'simpo' or 'gad', not 'dop'; did you mean dpo?"),
    ("simpo", ", lora: true, simpo: {gamma_beta_ratio: -1}", "simpo.gamma_beta_ratio: must be at least 0"),
    ("simpo", ", lora: true, simpo: 3", "simpo: must be a mapping"),
    ("gad", ", lora: true, gad: {stage: adversarial}", "gad.warmup_from: is missing; the adversarial stage begins with a warm-up's policy and discriminator: name its output folder, or one of its checkpoints"),
    ("gad", ", lora: true, gad: {stage: adversarial, warmup_from: w, rollouts: 1}", "gad.rollouts: must be at least 2: an answer is judged against the others"),
    ("gad", ", lora: true, gad: {warmup_from: w}", "gad.warmup_from: is for the adversarial stage; the stage is warmup"),
    ("gad", ", lora: true, gad: {dual_clip: 1}", "gad.dual_clip: must be greater than 1"),
    ("gad", ", lora: true, gad: {stage: adversary}", "gad.stage: must be 'warmup' or 'adversarial', not 'adversary'; did you mean adversarial?"),
    ("sft", "", "lora: say what is trained: lora: true, qlora: true or full: true"),
    ("sft", ", lora: true, qlora: true", "qlora: lora and qlora exclude each other; keep one"),
    ("sft", ", lora: {r: 8}", "lora.r: unknown key; did you mean rank?"),
    ("sft", ", lora: {alpha: 0}", "lora.alpha: must be greater than 0"),
    ("sft", ", qlora: true, deepspeed: zero2.json", "qlora: 4-bit weights cannot be sharded by DeepSpeed; leave `deepspeed` out (several GPUs then share the batch), or say lora: with the same values"),
    ("sft", ", full: true, deepspeed: {bf16: {enabled: true}}", "deepspeed.bf16.enabled: is True and args.bf16 is False; say one thing"),
    ("sft", ", full: true, deepspeed: {zero_optimization: 3}", "deepspeed.zero_optimization: must be a mapping"),
    ("sft", ", full: true, deepspeed: {optimizer: {type: Lion}}", "deepspeed.optimizer: Lion would replace the optimizer of args.optim; take it out"),
    ("sft", ", full: true, evaluate: {every: 5}", "evaluate.data: is missing"),
    ("sft", ", full: true, evaluate: {data: [3]}", "evaluate.data[0]: must be text; put it in quotes"),
    ("sft", ", full: true, args: {max_step: 3}", "args.max_step: unknown argument; did you mean max_steps?"),
    ("sft", ", full: true, args: {learning_rate: '1e-5'}", "args.learning_rate: must be a number, not a text"),
    ("sft", ", full: true, args: {eval_steps: 5}", "args.eval_steps: say it as evaluate.every"),
    ("sft", ", full: true, args: {report_to: comet}", "args.report_to: must be none or of tensorboard, wandb"),
    ("sft", ", full: true, args: {bf16: true, fp16: true}, deepspeed: {}", "args.fp16: bf16 and fp16 exclude each other"),
    ("sft", ", full: true, args: {fp16: true}", "args.fp16: needs deepspeed, which scales the loss; or say bf16"),
    ("sft", ", full: true, args: {resume_from_checkpoint: x}", "args.resume_from_checkpoint: is set from checkpoints.resume, which the trainer does by itself; remove it here"),
    ("sft", ", full: true, args: 3", "args: must be a mapping"),
    ("sft", ", full: true, eval_steps: 5", "eval_steps: unknown key; did you mean evaluate?"),
    ("sft", ", full: true, warmup_ratio: 0.1", "warmup_ratio: unknown key; did you mean train.args.warmup_ratio?"),
    ("sft", ", full: true, max_length: 9", "max_length: unknown key; did you mean max_seq_length?"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "more", "says"), REFUSED, ids=[f"{m}{t}" for m, t, _ in REFUSED]
)
def test_one_mistake_is_one_problem_that_names_its_key(method: str, more: str, says: str) -> None:
    (problem,) = told(JOB.format(method=method, more=more))
    assert problem == f"f.yaml:3: train.{says}"


@pytest.mark.parametrize(
    ("method", "more", "says"), REFUSED, ids=[f"{m}{t}" for m, t, _ in REFUSED]
)
def test_the_trainer_alone_refuses_it_too(method: str, more: str, says: str) -> None:
    """Nothing is refused here that the box would have taken, but for what gpujob says itself."""
    key = says.partition(":")[0].partition("[")[0]
    of_gpujob = ("lora.r",)
    record = yaml.safe_load(JOB.format(method=method, more=more))["train"]
    found = settings.check(record)
    assert key in of_gpujob or [problem.partition(":")[0] for problem in found] == [key]


def test_all_problems_of_train_at_once_in_a_phase_too() -> None:
    more = ", lora: {rank: 0}, args: {max_step: 3}, packing: true"
    expected = [
        "train.args.max_step: unknown argument; did you mean max_steps?",
        "train.lora.rank: must be at least 1",
        "train.packing: only for sft; nothing is padded in the other methods anyway",
    ]
    text = JOB.format(method="dpo", more=more)
    assert told(text) == [f"f.yaml:3: {each}" for each in expected]
    name, checkpoints, train = text.splitlines()
    phased = f"{name}\n{checkpoints}\nphases: [{{name: one, {train}}}]\n"
    assert told(phased) == [f"f.yaml:3: phases[0].{each}" for each in expected]


@pytest.mark.parametrize("place", ["args: {optim: %s}", "args: {%s: 1}", "method: %s", "%s: 1"])
def test_a_secret_among_the_values_is_not_repeated(place: str) -> None:
    token = "hf_" + "a1B2" * 8
    text = "name: demo\ncheckpoints: {path: out}\ntrain: {model: m, data: d, full: true, %s}\n"
    method = "" if "method" in place else "method: sft, "
    found = told(text % (method + place % token))
    assert found
    assert token not in "\n".join(found)


NAMES = (
    *(*settings.KEYS, *Args.__dataclass_fields__, *settings_gad.Gad.__dataclass_fields__),
    *("rank", "r", "alpha", "beta", "every", "zero_optimization", "stage", "optimizer", "params"),
)
WORDS = st.sampled_from([*settings.METHODS, "x", "auto", "adversarial", "adamw_8bit", "", "\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=15,
)


@effort(max_examples=300, deadline=None)
@given(
    st.sampled_from(settings.METHODS),
    st.dictionaries(st.sampled_from(settings.KEYS), VALUES, max_size=3),
)
def test_whatever_train_says_it_is_a_job_or_a_bad_job_file(
    method: str, more: dict[str, Any]
) -> None:
    """And a job is one that the trainer takes."""
    train = {"method": method, "model": "m", "data": "d", "lora": True, **more}
    job = {"name": "demo", "checkpoints": {"path": "out"}, "train": train}
    try:
        read = parse_job(json.dumps(job).encode(), file="f.yaml", base=Path())
    except BadJobFile as error:
        assert error.message
        return
    assert read.train is not None
    assert settings.check(training.record_of(read.train)) == ()
