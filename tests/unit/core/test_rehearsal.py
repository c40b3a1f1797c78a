"""The pure parts of a rehearsal: what a command and its files say, and what was left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.rehearsal import curve, edits, families, keys, sources
from orchestrator.core.spec import parse_job
from orchestrator.errors import BadJobFile
from remote.standin import words

WISH = edits.Wish(steps=40, every=10, model="gpujob_rehearsal/model")


@pytest.mark.parametrize(
    ("tree", "small"),
    [
        ({"max_steps": 11300}, {"max_steps": 40}),
        ({"training": {"save_steps": 500, "lr": 1e-5}}, {"training.save_steps": 10}),
        ({"checkpointing_steps": "epoch"}, {}),
        ({"save_total_limit": 1}, {}),
        ({"model_name": "Qwen/Qwen2.5-7B"}, {"model_name": "gpujob_rehearsal/model"}),
        ({"model_name": "models/local/of/mine"}, {}),
        ({"bf16": True, "fp16": False}, {"bf16": False}),
        ({"max_seq_length": 4096}, {"max_seq_length": 64}),
        ({"report_to": "wandb"}, {"report_to": "none"}),
        ([1, 2], {}),
        (None, {}),
    ],
    ids=str,
)
def test_settings_are_made_small_by_their_names(tree: Any, small: dict[str, Any]) -> None:
    assert edits.edits(tree, WISH) == small


@pytest.mark.parametrize(
    ("command", "small"),
    [
        ("train.py --max_steps 500 --lr 1e-5", "train.py --max_steps 40 --lr 1e-5"),
        ("train.py --save-steps=500 {resume}", "train.py --save-steps=10 {resume}"),
        ("-m a.b.c trainer.save_freq=50", "-m a.b.c trainer.save_freq=10"),
        ("-m a.b.c --max_steps $N", "-m a.b.c --max_steps $N"),
        ("--model Qwen/Qwen2-7B x", "--model gpujob_rehearsal/model x"),
    ],
)
def test_flags_of_a_command_are_made_small(command: str, small: str) -> None:
    assert edits.shrink_command(command, WISH) == small


def test_the_stand_in_reads_settings_by_the_same_names() -> None:
    """It travels to a box alone, and so has its own copy of them."""
    mine = (edits.STEPS, edits.SAVES, edits.LIMIT, edits.OUTPUT)
    its = (words.STEPS, words.EVERY, words.LIMIT, words.OUTPUT)
    assert [set(names) for names in its] == [set(names) for names in mine]


@pytest.mark.parametrize(
    ("name", "billion"),
    [
        ("Qwen/Qwen2.5-14B-Instruct", 14),
        ("meta/Llama-3.1-8B", 8),
        ("a/b-0.5b", 0.5),
        ("gpt2", None),
    ],
)
def test_a_model_s_name_tells_its_size(name: str, billion: float | None) -> None:
    assert edits.billions(name) == billion


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("deepspeed --num_gpus={gpus} scripts/train.py --config a.json", ("scripts/train.py",)),
        ("deepspeed --num_gpus 4 scripts/train.py", ("scripts/train.py",)),
        ("torchrun --nproc_per_node 2 -m pkg.train --a b", ("pkg/train.py",)),
        ("accelerate launch --num_processes 8 \\\n  a/b.py", ("a/b.py",)),
        ("python a.py && python -u b.py", ("a.py", "b.py")),
        ("echo hello", ()),
    ],
    ids=["equals", "gap", "module", "continued", "two", "none"],
)
def test_what_a_command_starts(command: str, found: tuple[str, ...]) -> None:
    assert sources.entries(command) == found


CODE = {
    "scripts/train.py": "import os, torch, helper\nfrom pkg import data\n"
    "try:\n    import wandb\nexcept ImportError:\n    pass\n",
    "scripts/helper.py": "import yaml\n",
    "pkg/__init__.py": "",
    "pkg/data.py": "from . import rows\nimport datasets\n",
    "pkg/rows.py": "import sklearn\n",
    "other.py": "import never_reached\n",
}  # fmt: skip


def test_what_the_code_needs_is_what_it_reaches() -> None:
    needed = sources.outside("scripts/train.py", CODE)
    assert needed == {"torch", "yaml", "datasets", "sklearn"}


@pytest.mark.parametrize(
    ("listed", "missing"),
    [
        (("datasets", "scikit-learn"), ()),
        (("datasets",), ("sklearn",)),
        (("pyyaml", "Scikit_Learn"), ("datasets",)),
        ((), ("datasets", "sklearn", "yaml")),
    ],
    ids=["all", "one", "spelt otherwise", "none"],
)
def test_a_missing_requirement(listed: tuple[str, ...], missing: tuple[str, ...]) -> None:
    assert sources.missing(sources.outside("scripts/train.py", CODE), listed) == missing


def test_what_a_setup_installs() -> None:
    setup = "pip install -U pip\npip install -r reqs/a.txt 'torch>=2' && python -m pip install trl"
    assert sources.installs(setup) == (("reqs/a.txt",), ("pip", "torch", "trl"))
    assert sources.requirements("# a\ntorch>=2\n-e .\ntrl[vllm]==1 ; x\n") == ("torch", "trl")


@pytest.mark.parametrize(
    ("text", "knows"),
    [
        ("parser.add_argument('--resume-from-checkpoint')", True),
        ("parser.add_argument('--config')", False),
        ("HfArgumentParser(Args)", True),
    ],
)
def test_whether_a_flag_is_known(text: str, knows: bool) -> None:
    assert sources.knows_flag("--resume_from_checkpoint", "a.py", {"a.py": text}) is knows


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("models/full/checkpoint-10/trainer_state.json", ("huggingface", "models/full")),
        ("out/step_5/COMPLETED", ("open-instruct", "out")),
        ("out/global_step_5/actor/model.pt", ("verl", "out")),
        ("out/model_0000500.pth", ("torchllms", "out")),
        ("checkpoint-10/trainer_state.json", ("huggingface", "")),
        ("scripts/train.py", None),
    ],
)
def test_what_was_left_tells_its_family(path: str, found: tuple[str, str] | None) -> None:
    assert families.written([path, "README.md"]) == found


def job_with(gate: str) -> Any:
    text = f"{{name: a, run: a, checkpoints: {{path: o}}, phases: [{{name: p, gate: {gate}}}]}}"

    return parse_job(text.encode(), file="j", base=Path()).parts[0][0]


def test_a_metric_that_nobody_writes_is_told_with_its_key_and_the_nearest_name() -> None:
    phase = job_with(
        "{metrics: [{metric: eval_los, below: 1}], loss_drop: {percent: 5, within_steps: 9}}"
    )
    asked = dict(curve.asked_metrics(phase, 3))
    (mistake,) = curve.never_written(asked, ("eval_loss", "loss"))
    assert mistake.key == "phases[3].gate.metrics[0].metric"
    assert mistake.advice == "write eval_loss"


def test_a_rule_of_one_s_own_on_a_metric_that_nobody_writes_is_told_once() -> None:
    rules = "{rules: [{metric: loss, above: 9}, {metric: kl_los, above: 1}]}"
    text = (
        f"{{name: a, run: a, checkpoints: {{path: o}}, health: {rules}, phases: [{{name: p}},"
        " {name: q}]}"
    )
    job = parse_job(text.encode(), file="j", base=Path())
    (words,) = curve.unheard((whole for _, whole in job.parts), ("loss",))
    assert "`kl_los`" in words and "health.rules[1].metric" in words


def test_the_first_step_is_the_box_s_own() -> None:
    log = b"Step: 11, LR: 1e-05, Loss: 1.0\nStep: 12, LR: 1e-05, Loss: 0.9\n"
    told = curve.Told(log, state=b'{"log_history": [{"loss": 2.0, "step": 1}]}')
    assert curve.first_step(told) == 11
    assert [each.step for each in curve.samples_of(told)] == [1, 11, 12]


PHASED = """
name: x
resources: {gpu: cpu:1}
run: x
checkpoints: {path: out}
phases: [{name: warm}, {name: full}]
"""


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("train.args.bf16: is no truth value", "train.args.bf16"),
        ("phase full runs the code of branch gad, and c is at main; x", "phases[1].git.branch"),
        ("m holds the checkpoints of run demo-1; nothing was changed.", "checkpoints.mirror"),
        ("11 GB (x), and 3 GB can be used there; nothing was rented", "checkpoints.mirror"),
        ("nobody knows", "the job file"),
    ],
    ids=["key", "branch", "mirror", "disk here", "none"],
)
def test_a_refusal_leads_to_a_key(message: str, key: str) -> None:
    job = parse_job(PHASED.encode(), file="f.yaml", base=Path())
    assert keys.refused(BadJobFile(message), job).key == key
