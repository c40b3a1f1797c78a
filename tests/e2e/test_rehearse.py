"""`gpujob rehearse` on a user's project: what it proves of a right one, and that each planted
mistake is told with the key to change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kit.gpujob import Place, wait_until
from kit.project import Project

pytestmark = pytest.mark.e2e


def rehearse(place: Place, job: Path, *words: str, check: int = 0, **env: str) -> dict[str, Any]:
    """The report; whatever it says, nothing of it is left."""
    told = {"HF_TOKEN": "x", **env}
    done = place.run("rehearse", str(job), "--json", *words, check=check, **told)
    wait_until(lambda: place.processes() == [], 15, "no process to be left")
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["passed"] == (check == 0), done.stderr
    return report


@pytest.fixture
def project(place: Place) -> Project:
    return Project(place.folder)


def test_a_right_job_passes_and_leaves_nothing(place: Place, project: Project) -> None:
    project.job["health"] = {"rules": [{"metric": "kl_los", "above": 1}]}
    report = rehearse(place, project.write())
    proven = "\n".join(report["proven"])
    assert report["own"] == ["full"]
    assert "went on on another one from checkpoint-10" in proven
    assert "it waited for its gate" in proven
    assert "eval_loss" in proven
    assert "proven gone" in proven
    told = "\n".join(report["unproven"])
    for only in (
        "memory",
        "learning",
        "behind the first 64",
        "4 ranks",
        "hub has Qwen/Qwen2.5-14B",
        "`kl_los`",
    ):
        assert only in told, "what only the real GPU can tell"
    assert not (place.folder / "code" / "models").exists()
    assert list((place.state / "rehearsals").iterdir()) == []
    assert place.run("ps", "--json").stdout == ""


FAMILIES = {
    "huggingface": (
        "deepspeed --num_gpus={gpus} scripts/train.py --config config.json {resume}",
        "--resume_from_checkpoint {checkpoint}",
    ),
    "open-instruct": (
        "accelerate launch --num_processes {gpus} open_instruct/finetune.py --config_file"
        " config.json --output_dir models/full --checkpointing_steps 500 {resume}",
        "--resume_from_checkpoint {checkpoint}",
    ),
    "verl": (
        "python3 -m verl.trainer.main_ppo trainer.default_local_dir=models/full"
        " trainer.save_freq=50 {resume}",
        "trainer.resume_from_path={checkpoint}",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("layout", FAMILIES)
def test_a_trainer_that_cannot_run_here_is_stood_in_for_and_that_is_said(
    place: Place, project: Project, layout: str
) -> None:
    run, resume = FAMILIES[layout]
    project.rows = "import vllm_of_nobody\n" + project.rows
    project.requirements += "vllm_of_nobody\n"
    path = project.folder / "code" / "open_instruct" / "finetune.py"
    path.parent.mkdir(parents=True)
    path.write_text("import vllm_of_nobody\n# --resume_from_checkpoint\n")
    project.job["run"] = run
    project.job["checkpoints"] |= {"layout": layout, "resume": {"args": resume}}
    report = rehearse(place, project.write())
    assert (report["own"], report["stand_ins"]) == ([], ["full"])
    assert "went on on another one from" in "\n".join(report["proven"])
    assert any("your own trainer did not run" in each for each in report["unproven"])
    assert any("`eval_loss` is written" in each for each in report["unproven"])


@pytest.mark.long
def test_a_trainer_that_never_saves_is_ended_in_time(place: Place, project: Project) -> None:
    project.trainer = project.trainer.replace('step % config["save_steps"] == 0 or', "")
    project.trainer = project.trainer.replace("most = config", "most = 9**9 or config")
    report = rehearse(place, project.write(), "--limit-s", "15", check=2)
    (mistake,) = report["mistakes"]
    assert "did not end in the time of a rehearsal" in mistake["words"]


@pytest.mark.long
def test_an_error_of_the_trainer_is_told_and_shown(place: Place, project: Project) -> None:
    project.trainer = project.trainer.replace(
        "out.mkdir", "raise ValueError('no such luck')\nout.mkdir"
    )
    project.job["phases"].append({"name": "after"})
    job = project.write()
    done = place.run("rehearse", str(job), check=2, HF_TOKEN="x")
    assert "x run: the trainer ended with 1: ValueError: no such luck" in done.stdout
    assert "What the trainer said last" in done.stderr
    assert "? after: all of it; the rehearsal ended before" in done.stdout


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
    ],
    ids=["term", "kill", "ctrl-c twice", "closed terminal"],
)
def test_one_that_is_ended_leaves_nothing(
    place: Place, project: Project, number: signal.Signals
) -> None:
    """A SIGKILL lets nobody clean up: the next rehearsal does. A terminal signals all of them."""
    words = [sys.executable, "-m", "orchestrator.cli", "rehearse", str(project.write())]
    env = {**place.env, "HF_TOKEN": "x"}
    with subprocess.Popen(
        words, env=env, cwd=place.folder, stderr=subprocess.DEVNULL, start_new_session=True
    ) as running:
        boxes = place.state / "rehearsals"
        wait_until(lambda: any(boxes.glob("*/state/runs/*/*/log")), 60, "a trainer")
        os.killpg(running.pid, number)
        if number == signal.SIGINT:
            time.sleep(0.3)
            os.killpg(running.pid, number)
        running.wait(30)
    if number == signal.SIGKILL:
        assert place.processes()
        project.job["run"] = "exit 3 # {resume}"
        rehearse(place, project.write(), check=2)
    wait_until(lambda: place.processes() == [], 15, "no process to be left")
    assert list(boxes.iterdir()) == []


def test_a_job_that_must_not_be_run_is_not_rehearsed(place: Place, project: Project) -> None:
    project.job["refuse"] = "there is no such model"
    report = rehearse(place, project.write(), check=2)
    (mistake,) = report["mistakes"]
    assert mistake["key"] == "refuse" and "there is no such model" in mistake["words"]
    assert report["proven"] == []


def test_a_file_that_is_no_job_is_refused_as_ever(place: Place, project: Project) -> None:
    project.job["checkpoints"]["layout"] = "hugingface"
    done = place.run("rehearse", str(project.write()), check=2)
    assert "checkpoints.layout" in done.stderr
    assert not (place.state / "rehearsals").exists()


@dataclass(frozen=True)
class Planted:
    """What is changed in the project, the key that has to be named, and words of the message."""

    name: str
    plant: Callable[[Project], None]
    key: str
    words: str
    advice: str


def missing_column(project: Project) -> None:
    project.settings["data"]["prompt_column"] = "promt"


def wrong_layout(project: Project) -> None:
    project.job["checkpoints"]["layout"] = "verl"


def resume_flag_ignored(project: Project) -> None:
    project.trainer = project.trainer.replace("if options.resume_from_checkpoint:", "if False:")


def retention_of_one(project: Project) -> None:
    project.settings["save_total_limit"] = 1


def missing_requirement(project: Project) -> None:
    project.rows = "import sqlparse_of_nobody\n" + project.rows


def bad_secret_name(project: Project) -> None:
    project.job["secrets"] = ["HF_TOKN"]


def wrong_branch(project: Project) -> None:
    project.job["phases"][0]["git"] = {"branch": "gad"}


def disk_too_small(project: Project) -> None:
    project.job["resources"]["disk_gb"] = 20


def checkpoint_path_typo(project: Project) -> None:
    project.job["checkpoints"]["path"] = "models/ful"


def metric_never_written(project: Project) -> None:
    project.job["phases"][0]["gate"]["metrics"][0]["metric"] = "eval_los"


# Not of the list: what users do besides.


def a_number_of_gpus(project: Project) -> None:
    project.job["run"] = "deepspeed --num_gpus=8 scripts/train.py --config config.json {resume}"


def data_beside_where_they_are_read(project: Project) -> None:
    project.job["data"][0]["to"] = "dataset/train.jsonl"


def a_shell_script_s_name(project: Project) -> None:
    project.job["run"] = "set -e\nbash scripts/trian.sh --config config.json {resume}"


def a_script_s_name(project: Project) -> None:
    project.job["run"] = "python scripts/trian.py --config config.json {resume}"


def a_comma_too_many(project: Project) -> None:
    path = project.folder / "code" / "config.json"
    project.after.append(lambda: path.write_text(path.read_text().replace("}}", "},}")))


def a_save_beyond_the_end(project: Project) -> None:
    project.settings["max_steps"] = 300


PLANTED = (
    Planted(
        "missing column",
        missing_column,
        "config.json (data.prompt_column)",
        "no column `promt`; data/train.jsonl has prompt, response",
        "write prompt",
    ),
    Planted(
        "wrong layout",
        wrong_layout,
        "checkpoints.layout",
        "it says verl, and what the trainer writes looks like huggingface",
        "layout: huggingface",
    ),
    Planted(
        "resume flag ignored",
        resume_flag_ignored,
        "checkpoints.resume.args",
        "was told to go on from checkpoint-10 and began at step 1",
        "{checkpoint}",
    ),
    Planted(
        "retention of 1",
        retention_of_one,
        "patch: {config.json: {save_total_limit: 3}}",
        "save_total_limit is 1 in config.json",
        "2 or more",
    ),
    Planted(
        "missing requirement",
        missing_requirement,
        "setup (requirements.txt)",
        "imports sqlparse_of_nobody",
        "add sqlparse_of_nobody to requirements.txt",
    ),
    Planted("bad secret name", bad_secret_name, "secrets[0]", "HF_TOKN", "write HF_TOKEN"),
    Planted(
        "wrong branch",
        wrong_branch,
        "phases[0].git.branch",
        "code of branch gad",
        "switch gad",
    ),
    Planted(
        "disk too small",
        disk_too_small,
        "resources.disk_gb",
        "14 billion parameters need at least 28 GB",
        "resources.disk_gb: 40",
    ),
    Planted(
        "checkpoint path typo",
        checkpoint_path_typo,
        "checkpoints.path",
        "it says models/ful, and the trainer writes its checkpoints to models/full",
        "path: models/full",
    ),
    Planted(
        "gate on a metric that is never written",
        metric_never_written,
        "phases[0].gate.metrics[0].metric",
        "`eval_los` was never written",
        "write eval_loss",
    ),
)


INVENTED = (
    Planted("a number of GPUs", a_number_of_gpus, "run", "it starts 8 processes", "write {gpus}"),
    Planted(
        "data beside where they are read",
        data_beside_where_they_are_read,
        "run",
        "it needs data/train.jsonl, which is not on the box",
        "data: [{from",
    ),
    Planted(
        "a script's name",
        a_script_s_name,
        "run",
        "it needs scripts/trian.py, which is not on the box",
        "correct the path",
    ),
    Planted(
        "a shell script's name",
        a_shell_script_s_name,
        "run",
        "it needs scripts/trian.sh, which is not on the box",
        "correct the path",
    ),
    Planted("a comma too many", a_comma_too_many, "config.json", "it cannot be read", "correct"),
    Planted(
        "a save beyond the end",
        a_save_beyond_the_end,
        "patch: {config.json: {save_steps: 60}}",
        "it ends at step 300",
        "below 300",
    ),
)


@pytest.mark.long
@pytest.mark.parametrize("planted", PLANTED + INVENTED, ids=lambda each: each.name)
def test_a_planted_mistake_names_its_key(place: Place, project: Project, planted: Planted) -> None:
    planted.plant(project)
    job = project.write()
    if planted.plant is wrong_branch:
        git = ["git", "-C", str(place.folder / "code"), "-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-qb", "main"], ["add", "."], ["commit", "-qm", "first"]):
            subprocess.run([*git, *words], check=True)
    report = rehearse(place, job, "--steps", "20", check=2)
    found = {each["key"]: each for each in report["mistakes"]}
    assert planted.key in found, report["mistakes"]
    assert planted.words in found[planted.key]["words"]
    assert planted.advice in found[planted.key]["advice"]
    assert len(found) == 1, "one mistake is one message"
