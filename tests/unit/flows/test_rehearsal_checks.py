"""What a rehearsal reads out of the user's files before it runs: each mistake with its key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.tree import LocalTrees
from orchestrator.core.spec import Job, parse_job
from orchestrator.flows.rehearsal.checks import found_in_files, unset_secrets
from orchestrator.flows.rehearsal.code import Code, read_code
from orchestrator.flows.rehearsal.props import MOST_JSON, Makers, Props
from orchestrator.flows.rehearsal.rows import absent_data, made_up_rows

TRAINER = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--config")
parser.add_argument("--resume_from_checkpoint")
"""


@dataclass(frozen=True)
class Case:
    """Settings, source and changes of the job; the key of the one mistake, and words of it."""

    key: str = ""
    words: str = ""
    settings: Any = field(default_factory=dict)
    source: str = ""
    job: dict[str, Any] = field(default_factory=dict)


CASES = {
    "a right one": Case(settings={"max_steps": 100, "save_steps": 50, "eval_steps": 25}),
    "no limit of steps": Case(settings={"max_steps": -1, "save_steps": 500}),
    "it never saves": Case(
        "patch: {config.json: {training.save_steps: 60}}",
        "save_steps is 500 in config.json, and it ends at step 300",
        settings={"training": {"max_steps": 300, "save_steps": 500}},
    ),
    "it never saves, and cannot resume": Case(
        settings={"max_steps": 300, "save_steps": 500},
        job={"checkpoints": {"path": "out"}, "run": "python train.py --config config.json"},
    ),
    "a save without its evaluation": Case(
        "patch: {config.json: {save_steps: 500}}",
        "refuses a save that no evaluation comes with",
        settings={"save_steps": 250, "eval_steps": 500},
        source="TrainingArguments(load_best_model_at_end=True)",
    ),
    "the best is not asked for": Case(
        settings={"save_steps": 250, "eval_steps": 500, "load_best_model_at_end": False},
        source="TrainingArguments(load_best_model_at_end=True)",
    ),
    "one checkpoint is kept": Case(
        "run",
        "save_total_limit is 1 in the command",
        job={"run": "python train.py --config config.json --save_total_limit 1 {resume}"},
    ),
    "a number of processes": Case(
        "run",
        "it starts 8 processes, and resources.gpu has 4",
        job={
            "run": "torchrun --nproc_per_node=8 train.py --config config.json {resume}",
            "resources": {"providers": ["local"], "gpu": "cpu:4"},
        },
    ),
    "processes of a step before": Case(
        job={
            "run": "torchrun --nproc_per_node 1 train.py\ntorchrun --nproc_per_node 4 train.py"
            " --config config.json {resume}",
            "resources": {"providers": ["local"], "gpu": "cpu:4"},
        },
    ),
    "settings that are no JSON": Case(
        "config.json", "it cannot be read: Expecting property name", settings='{"a": 1,}'
    ),
    "a secret that the code wants": Case(
        "secrets",
        "the code reads WANDB_API_KEY from its environment",
        source='import os\nkey = os.environ["WANDB_API_KEY"]',
    ),
    "a secret that the code names otherwise": Case(
        "secrets[0]",
        "nothing sets WANDB_KEY",
        source='import os\nkey = os.getenv("WANDB_API_KEY")',
        job={"secrets": ["WANDB_KEY"]},
    ),
    "a secret that the code can do without": Case(
        source='import os\ntry:\n    key = os.environ["WANDB_API_KEY"]\nexcept KeyError:\n'
        '    key = os.environ.get("HF_TOKEN")'
    ),
    "a secret that is set": Case(
        source='import os\nkey = os.environ["HF_TOKEN"]', job={"secrets": ["HF_TOKEN"]}
    ),
    "a flag that the script does not know": Case(
        "checkpoints.resume.args",
        "train.py does not know --resume-from",
        job={"checkpoints": {"path": "out", "resume": {"args": "--resume-from {checkpoint}"}}},
    ),
    "an import that nothing installs": Case(
        "setup", "imports peft", source="import peft", job={"setup": "pip install transformers"}
    ),
}


def read(case: Case, folder: Path) -> tuple[Job, Code]:
    told = case.settings if isinstance(case.settings, str) else json.dumps(case.settings)
    (folder / "config.json").write_text(told)
    (folder / "train.py").write_text(TRAINER + case.source)
    tree = {
        "name": "study",
        "resources": {"providers": ["local"], "gpu": "cpu:1"},
        "code": {"path": str(folder)},
        "run": "python train.py --config config.json {resume}",
        "checkpoints": {
            "path": "out",
            "resume": {"args": "--resume_from_checkpoint {checkpoint}"},
        },
        **case.job,
    }
    if "train" in tree:
        del tree["run"], tree["checkpoints"]["resume"]
    job = parse_job(json.dumps(tree).encode(), file="job.json", base=folder).parts[0][1]
    return job, read_code(job.at(folder), LocalTrees(folder.parent / "hashes.json"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_mistake_is_one_message_with_its_key(case: Case, tmp_path: Path) -> None:
    job, code = read(case, tmp_path)
    found = [*unset_secrets(job, {"HF_TOKEN": "x"}, code), *found_in_files(job, code)]
    assert [each.key for each in found] == ([case.key] if case.key else []), found
    if found:
        assert case.words in found[0].words and found[0].advice


@pytest.mark.parametrize(
    ("data", "setup", "absent"),
    [
        ("rows/train.jsonl", "make rows", ()),
        ("rows", "make rows", ()),
        ("rows/*.jsonl", "make rows", ()),
        ("made.jsonl", "make rows", ("made.jsonl",)),
        (["rows/train.jsonl", "made"], "make rows", ("made",)),
        ("made.jsonl", None, ()),
    ],
    ids=["a file", "a folder", "a pattern", "made by setup", "one of two", "the plan says it"],
)
def test_data_that_only_the_box_will_have(
    data: Any, setup: str | None, absent: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "train.jsonl").write_text("{}")
    train = {"method": "sft", "model": "a/b", "data": data, "lora": True}
    job = {"train": train, "data": [{"from": "here/", "to": "rows/"}]}
    tree = {**job, **({"setup": setup} if setup else {})}
    read_job, code = read(Case(job=tree), tmp_path)
    assert absent_data(read_job.at(tmp_path), code) == absent


@pytest.mark.parametrize("kind", ["chat", "pairs", "distill"])
def test_made_up_rows_are_read_by_every_method(kind: str) -> None:
    shapes = pytest.importorskip("remote.trainer.data.shapes")
    rows = [json.loads(line) for line in made_up_rows().splitlines()]
    assert len(rows) == 64 and all(shapes.conversations(row, kind) for row in rows)


def test_what_is_too_large_to_travel_here_has_an_empty_place(tmp_path: Path) -> None:
    """A file that is named and not there would be refused, as if the user had no such file."""
    for name, size in (("huge.json", MOST_JSON + 1), ("weights.bin", 2**21)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    (tmp_path / "rows.json").write_text(json.dumps(["x" * 1000] * 2000))
    data = "[{from: huge.json, to: a/}, {from: weights.bin, to: b/}, {from: rows.json, to: a/}]"
    text = f"{{name: a, run: a, checkpoints: {{path: o}}, data: {data}}}"
    job = parse_job(text.encode(), file="j", base=tmp_path)
    makers = Makers(lambda source, dest, rows: "", lambda folder, words: None)
    props = Props(tmp_path / "props", makers, tmp_path, "python3")
    copies = props.data(job)
    assert props.left_out == ["huge.json", "weights.bin"]
    assert [Path(copies[name]).stat().st_size for name in props.left_out] == [0, 0]
    assert len(json.loads(Path(copies["rows.json"]).read_text())) == 64
