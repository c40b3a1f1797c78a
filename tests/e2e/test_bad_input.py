"""Bad input: one clear error with the next command, the right exit code, and nothing created."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from kit.gpujob import Place

GOOD = {"name": "demo", "run": "true", "code": {"path": "code"}, "checkpoints": {"path": "out"}}

FILES: dict[str, tuple[str, list[str]]] = {
    "not yaml": ("name: [demo", ["job.yaml:"]),
    "empty": ("", ["job.yaml"]),
    "unknown key": (json.dumps({**GOOD, "bugdet": {"usd": 1}}), ["bugdet", "did you mean budget"]),
    "unknown key inside": (
        json.dumps({**GOOD, "budget": {"usd_per_hours": 1}}),
        ["usd_per_hours", "did you mean usd_per_hour"],
    ),
    "missing data": (
        json.dumps({**GOOD, "data": [{"from": "nowhere/", "to": "data/"}]}),
        ["nowhere/", "does not exist", "nothing was rented"],
    ),
    "missing code": (json.dumps({**GOOD, "code": {"path": "nocode"}}), ["nocode"]),
    "unset secret": (json.dumps({**GOOD, "secrets": ["NOT_SET"]}), ["NOT_SET", "export NOT_SET"]),
    "not supported yet": (
        json.dumps({**GOOD, "notify": ["mailto://a@b.c"]}),
        ["notify", "not supported yet"],
    ),
    "no run and no train": (
        json.dumps({"name": "demo", "checkpoints": {"path": "out"}}),
        ["run", "train"],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_job_file(place: Place, case: str) -> None:
    text, words = FILES[case]
    (place.folder / "job.yaml").write_text(text)
    done = place.run("launch", "job.yaml", "--yes", check=2)
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place.state / "runs").exists()


def test_every_problem_is_told_at_once(place: Place) -> None:
    (place.folder / "job.yaml").write_text(
        "name: Demo!\nrun: 'true'\nbugdet: {}\nresources:\n  gpu: cpu:no\n"
        "checkpoints: {path: /abs}\n"
    )
    told = place.run("launch", "job.yaml", "--yes", check=2).stderr
    for line, word in ((1, "name"), (3, "bugdet"), (5, "gpu"), (6, "path")):
        assert f"job.yaml:{line}: " in told, told
        assert word in told


def test_a_missing_file(place: Place) -> None:
    assert "no such file" in place.run("launch", "nothing.yaml", "--yes", check=2).stderr


def test_no_terminal_to_ask_on(place: Place) -> None:
    (place.folder / "job.yaml").write_text(json.dumps(GOOD))
    done = place.run("launch", "job.yaml", check=2)
    assert "--yes" in done.stderr
    assert not (place.state / "runs").exists()


def test_no_offer_fits(place: Place) -> None:
    (place.folder / "job.yaml").write_text(json.dumps({**GOOD, "resources": {"gpu": "H100:8"}}))
    done = place.run("launch", "job.yaml", "--yes", check=3)
    assert "H100:8" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["watch"], ["watch", "nothing"], ["teardown", "nothing"], ["pull", "nothing:500"],
     ["pull", "latest"], ["events", "nothing"], ["checkpoints", "nothing"], ["logs", "nothing"]],
    ids=" ".join,
)  # fmt: skip
def test_a_run_that_does_not_exist(place: Place, words: list[str]) -> None:
    done = place.run(*words, check=9)
    assert done.stderr.startswith("error: ")
    assert "hint: `gpujob" in done.stderr
    assert not (place.state / "runs").exists()


@pytest.mark.parametrize("tool", ["sshd", "tmux"])
def test_a_missing_tool(place: Place, tool: str) -> None:
    """In a mount namespace where the program cannot be run."""
    (place.folder / "job.yaml").write_text(json.dumps(GOOD))
    path = shutil.which(tool, path="/usr/sbin:/usr/bin:/bin")
    hide = f"mount --bind /dev/null {path} && exec {sys.executable} -m orchestrator.cli"
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", f"{hide} launch job.yaml --yes"],
        env=place.env,
        cwd=place.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert tool in done.stderr
    assert "apt" in done.stderr
    assert not (place.state / "runs").exists()


def test_a_state_folder_that_cannot_be_written(place: Place) -> None:
    (place.folder / "job.yaml").write_text(json.dumps(GOOD))
    for words in (["launch", "job.yaml", "--yes"], ["ps"]):
        done = place.run(*words, GPUJOB_HOME="/proc/nowhere", check=1)
        assert "/proc/nowhere" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_unknown_verb(place: Place) -> None:
    assert "did you mean watch" in place.run("wacth", check=2).stderr


def test_a_mirror_of_another_run_is_refused(place: Place) -> None:
    stamp = place.folder / "mirror" / ".gpujob" / "run.json"
    stamp.parent.mkdir(parents=True)
    stamp.write_text('{"v": 1, "run": "demo-other", "ledger": "0"}')
    job = {**GOOD, "checkpoints": {"path": "out", "mirror": "mirror"}}
    (place.folder / "job.yaml").write_text(json.dumps(job))
    assert "demo-other" in place.run("launch", "job.yaml", "--yes", check=2).stderr


def test_the_dry_run_creates_nothing(place: Place) -> None:
    (place.folder / "job.yaml").write_text(json.dumps(GOOD))
    done = place.run("launch", "job.yaml", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["phases"][0]["offers"][0]["provider"] == "local"
    assert plan["ceiling_usd"] == 0
    assert {path.name for path in place.state.iterdir()} <= {"hashes.json"}
    assert not (place.folder / "mirror").exists()


def test_a_mirror_that_a_live_run_has_is_refused(place: Place) -> None:
    job = place.job("--step-s 1")
    run = place.launch(job)
    runs = sorted(path.name for path in (place.state / "runs").iterdir())
    assert run in place.run("launch", str(job), "--yes", "--detach", check=2).stderr
    assert sorted(path.name for path in (place.state / "runs").iterdir()) == runs == [run]
    place.run("teardown", run)


def test_a_teardown_of_nobody_in_particular_ends_none_of_two(place: Place) -> None:
    runs = []
    for name in ("one", "two"):
        checkpoints = {
            "path": "out",
            "resume": {"args": "--resume {checkpoint}"},
            "mirror": str(place.folder / name),
        }
        runs.append(place.launch(place.job("--step-s 1", name=name, checkpoints=checkpoints)))
    told = place.run("teardown", check=2).stderr
    assert all(run in told for run in runs)
    assert not any("requested.teardown" in place.kinds(run) for run in runs)
    for run in runs:
        place.run("teardown", run)
