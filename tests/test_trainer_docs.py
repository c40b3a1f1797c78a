"""What the trainer's pages show is so: jobs, settings, defaults, commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from sim.campaign import CAMPAIGNS

from orchestrator.core.spec import parse_job
from remote.trainer.args import Args
from remote.trainer.evaluate import settings as evaluation
from remote.trainer.settings import METHODS
from remote.trainer.settings_gad import CRITIC_WARMUP, Gad

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TRAIN = [
    pytest.param(text, id=f"{page.stem}-{at}")
    for page in PAGES
    for at, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
    if text.startswith("train:")
]
BENCHMARK = re.compile(r"^ {4}(python benchmarks/\S+\.py .*)$", re.MULTILINE)
BENCHMARKS = [line for page in PAGES for line in BENCHMARK.findall(page.read_text())]
# Options are read from the left, so `--help` at the end is not reached past a wrong one.
UNDERSTAND = """
import json, runpy, sys
sys.path.insert(0, "benchmarks")
for words in json.loads(sys.argv[1]):
    sys.argv = [*words, "--help"]
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, words
"""
OPTIONS = {
    "remote.trainer": {"train.json"},
    "remote.trainer evaluate": {"EVAL.json"},
    "remote.trainer.launch": {"--ranks", "N", "train.json"},
}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_there_is_something_to_look_at() -> None:
    assert len(TRAIN) >= 2
    assert len(BENCHMARKS) >= 6


@pytest.mark.parametrize("text", TRAIN)
def test_a_train_that_is_shown_is_a_job(text: str) -> None:
    job = parse_job(
        f"name: demo\ncheckpoints: {{path: out}}\n{text}".encode(), file="docs", base=Path()
    )
    assert job.train is not None
    assert job.train.method in METHODS


def test_the_second_stage_of_gad_is_a_job_too() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", page("gad.md"), re.DOTALL)
    stage = "gad: {stage: adversarial, warmup_from: warm-up}"
    assert "warmup_from: warm-up" in page("gad.md")
    later = re.sub(r"gad: \{.*?\}", stage, text)
    assert later != text
    head = "name: demo\ncheckpoints: {path: out}\n"
    job = parse_job((head + later).encode(), file="docs", base=Path())
    assert job.train is not None
    assert job.train.gad is not None
    assert job.train.gad.stage == "adversarial"


def test_the_evaluation_that_is_shown_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", page("evaluate.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    record = json.loads(text)
    Path(record["checkpoint"]).mkdir(parents=True)
    asked = evaluation.parse(record)
    assert asked.loss and asked.generate and asked.socrates


def test_every_argument_that_is_honoured_is_listed() -> None:
    table = page("trainer.md").split("| `args` | honoured |")[1].split("\n\n")[0]
    named = [name for name in re.findall(r"`([a-z0-9_]+)`", table) if "." not in name]
    assert sorted(named) == sorted(each.name for each in fields(Args))


def test_the_defaults_of_gad_are_those_of_the_page() -> None:
    table = page("gad.md").split("| key | default | |")[1].split("\n\n")[0]
    shown: dict[str, Any] = {}
    for row in table.splitlines()[2:]:
        keys, values, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        names = re.findall(r"`(\w+)`", keys)
        shown |= dict(zip(names, values.strip("`").split(", "), strict=True))
    assert set(shown) == {each.name for each in fields(Gad)}
    assert shown["critic_warmup"] == "{warmup}; adversarial {adversarial}".format(**CRITIC_WARMUP)
    for name in set(shown) - {"critic_warmup", "critic_learning_rate", "warmup_from"}:
        assert yaml.safe_load(shown[name]) == getattr(Gad, name), name


def test_the_benchmarks_commands_are_understood() -> None:
    """In one process, which imports torch once."""
    commands = [shlex.split(line, comments=True)[1:] for line in BENCHMARKS]
    done = subprocess.run(
        [sys.executable, "-c", UNDERSTAND, json.dumps(commands)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(commands)


def test_the_module_is_called_as_it_wants_to_be() -> None:
    """Each of these forms is what a test runs: trainer_kit, test_train_job, test_launch,
    test_evaluate_command."""
    text = "\n".join(page.read_text() for page in PAGES)
    shown = re.findall(r"python -m (remote\.trainer[\w.]*(?: evaluate)?)([^`\n]*)", text)
    assert {name for name, _ in shown} == set(OPTIONS)
    for name, words in shown:
        assert set(words.split()) <= OPTIONS[name], words


def test_campaigns_that_are_named_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    names = set(re.findall(r"make campaign NAME=([a-z0-9-]+)", text))
    assert {"trainer-resume", "gad-toy"} <= names <= set(CAMPAIGNS)
    for name in names:
        assert (ROOT / "campaigns" / f"{name}.json").is_file(), name
