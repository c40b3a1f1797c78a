"""Scripts that train, as job files: launcher, GPUs, layout, resume, and no value of a secret."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.core.jobtext import job_name, job_text
from orchestrator.core.scripts import read_script
from orchestrator.core.spec import parse_job

DEEPSPEED = """#!/bin/bash
# Full fine-tune
source venv/bin/activate
pip install -r requirements.txt
export HF_TOKEN=hf_valueofatoken
export CUDA_VISIBLE_DEVICES=0,1,2,3
export TOKENIZERS_PARALLELISM=false
OUT=models/full
nohup deepspeed --num_gpus=4 scripts/train.py \\
    --config config.json --output_dir $OUT \\
    --deepspeed ds.json > training.log 2>&1 &
"""
TORCHRUN = """
torchrun --nproc_per_node 8 -m torchllms.training.trainers.sft --output_dir outputs/sft --lr 1e-5
"""
ACCELERATE = """
accelerate launch --mixed_precision bf16 --num_processes 8 open_instruct/finetune.py \\
  --output_dir output/tulu/ --checkpointing_steps 500 | tee sft.log
"""
VERL = """
EXP_NAME=gad_7b
python3 -m verl.trainer.main_ppo \\
  trainer.n_gpus_per_node=8 trainer.save_freq=50 \\
  trainer.default_local_dir=/tmp/${EXP_NAME} trainer.total_epochs=4
"""
PYTHON = "python train.py --output_dir=out --resume-from-checkpoint out/checkpoint-3"


@dataclass(frozen=True)
class Case:
    text: str
    launcher: str
    gpus: int
    path: str
    layout: str
    resume: str
    holds: tuple[str, ...]
    lacks: tuple[str, ...] = ()


CASES = {
    "deepspeed": Case(
        DEEPSPEED,
        "deepspeed",
        4,
        "models/full",
        "huggingface",
        "--resume_from_checkpoint {checkpoint}",
        ("deepspeed --num_gpus={gpus} scripts/train.py", "ds.json {resume}"),
        ("nohup", "training.log", "$OUT"),
    ),
    "torchrun": Case(
        TORCHRUN,
        "torchrun",
        8,
        "outputs/sft",
        "torchllms",
        "",
        ("torchrun --nproc_per_node {gpus} -m torchllms",),
        ("{resume}",),
    ),
    "accelerate": Case(
        ACCELERATE,
        "accelerate",
        8,
        "output/tulu",
        "open-instruct",
        "--resume_from_checkpoint={checkpoint}",
        ("--num_processes {gpus}", "--do_not_randomize_output_dir=true {resume}"),
        ("tee",),
    ),
    "verl": Case(
        VERL,
        "verl",
        8,
        "gad_7b",
        "verl",
        "trainer.resume_mode=resume_path trainer.resume_from_path={checkpoint}",
        ("trainer.n_gpus_per_node={gpus}", "trainer.default_local_dir=gad_7b"),
        ("/tmp/",),
    ),
    "python": Case(
        PYTHON,
        "python",
        1,
        "out",
        "huggingface",
        "--resume-from-checkpoint {checkpoint}",
        ("python train.py --output_dir=out {resume}",),
        ("checkpoint-3",),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_script_becomes_a_job(case: Case, tmp_path: Path) -> None:
    script = read_script(case.text)
    assert script is not None and script.launcher == case.launcher
    text = job_text(script, job_name("Train It!"), "train.sh")
    job = parse_job(text.encode(), file="job.yaml", base=tmp_path)
    assert job.name == "train-it"
    assert {need.count for need in job.resources.needs} == {case.gpus}
    assert (job.checkpoints.path, job.checkpoints.layout) == (case.path, case.layout)
    assert job.checkpoints.resume.args == case.resume
    assert job.run is not None
    for words in case.holds:
        assert words in job.run
    for words in case.lacks:
        assert words not in job.run


def test_what_surrounds_the_command_is_carried_over_and_no_secret_s_value() -> None:
    script = read_script(DEEPSPEED)
    assert script is not None
    assert script.secrets == ("HF_TOKEN",)
    assert script.setup == ("pip install -r requirements.txt",)
    assert dict(script.env) == {"TOKENIZERS_PARALLELISM": "false"}
    assert "hf_valueofatoken" not in job_text(script, "a", "train.sh")
    assert any("virtual environment" in note for note in script.notes)


def test_a_folder_outside_the_work_folder_is_told() -> None:
    script = read_script(VERL)
    assert script is not None
    assert any("/tmp/gad_7b became gad_7b" in note for note in script.notes)


MULTIPLE = """
cd literature/project
OMP_NUM_THREADS=8 HF_TOKEN=abc srun --ntasks=1 python \\
    -m project.train \\
  --data   /data/train.jsonl --output_dir runs/"my run" "$@" | tee -a x.log
python -m project.report "$RUN"
"""


@dataclass(frozen=True)
class Told:
    text: str
    run: str
    note: str


TOLD = {
    "words before and behind": Told(
        MULTIPLE,
        'python -m project.train --data   /data/train.jsonl --output_dir runs/"my run" {resume}',
        "left out: python -m",
    ),
    "another folder": Told(MULTIPLE, "{resume}", "code.path: the script works in literature/proj"),
    "another machine's file": Told(MULTIPLE, "{resume}", "/data/train.jsonl is a place of another"),
    "a flag that nobody named": Told(MULTIPLE, "{resume}", "--resume_from_checkpoint are guesses"),
    "the caller's values": Told(
        "N=$1\naccelerate launch --num_processes $N a.py --lr $LR --output_dir o/$LR",
        "accelerate launch --num_processes {gpus} a.py --lr $LR --output_dir output {resume}",
        "nothing sets $LR",
    ),
    "how many GPUs": Told("torchrun --nproc_per_node $N a.py", "{gpus}", "GPUs; 1 is a guess"),
    "a loop": Told(
        "for lr in 1 2; do\n  python a.py --lr $lr\ndone", "python a.py", "loops and conditions"
    ),
    "a value that is made": Told(
        "export LOG=$(date)\npython a.py", "python a.py", "env: LOG is left out"
    ),
}


@pytest.mark.parametrize("case", TOLD.values(), ids=TOLD)
def test_what_is_not_carried_over_is_told(case: Told) -> None:
    script = read_script(case.text)
    assert script is not None
    assert case.run in script.command
    assert [note for note in script.notes if case.note in note], script.notes


def test_words_before_the_command_are_its_environment() -> None:
    script = read_script(MULTIPLE)
    assert script is not None
    assert (dict(script.env), script.secrets) == ({"OMP_NUM_THREADS": "8"}, ("HF_TOKEN",))
    assert script.output == "runs/my run"


@pytest.mark.parametrize("export", ["export ", ""])
def test_a_secret_s_value_is_nowhere(export: str) -> None:
    text = f"{export}MY_TOKEN=swordfish\nwandb login swordfish\npython a.py --token $MY_TOKEN"
    script = read_script(text)
    assert script is not None and script.secrets == ("MY_TOKEN",)
    assert "swordfish" not in repr(script)
    assert "--token $MY_TOKEN" in script.command


def test_an_exported_folder_is_the_checkpoints() -> None:
    script = read_script("export OUT=runs/one\npython a.py --output_dir $OUT")
    assert script is not None and script.output == "runs/one"


@pytest.mark.parametrize(
    "text", ["", "echo hello", "pip install deepspeed", "# deepspeed train.py"],
    ids=["empty", "no trainer", "only installed", "a comment"],
)  # fmt: skip
def test_a_script_without_a_trainer_is_none(text: str) -> None:
    assert read_script(text) is None
