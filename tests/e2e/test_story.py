"""The main job with real sshd, tmux, agent and daemon, and a trainer that knows nothing of us."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kit.gpujob import Place, wait_until

pytestmark = pytest.mark.e2e

ALL = {f"checkpoint-{step}" for step in range(10, 61, 10)} | {"final"}


def recorded(place: Place) -> dict[str, dict[str, Any]]:
    """What the trainer wrote down of its own files, outside the run; the last time counts."""
    lines = (place.folder / "record.jsonl").read_text().splitlines()
    return {each["name"]: each for each in map(json.loads, lines)}


def check_mirror(place: Place, names: set[str]) -> None:
    """Every checkpoint is here, and its bytes are those that the trainer wrote."""
    assert set(place.published()) == names
    for name, record in recorded(place).items():
        for path, digest in record["files"].items():
            data = (place.folder / "mirror" / name / path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest, f"{name}/{path}"


def check_intervals(place: Place, run: str) -> None:
    """Instances are proven gone, or never rented, and no two were rented at once."""
    began: dict[str, int] = {}
    ended: dict[str, int] = {}
    for event in place.events(run):
        if event["kind"] == "instance.intended":
            began[event["data"]["instance"]] = event["seq"]
        if event["kind"] in ("instance.gone", "instance.refused"):
            ended[event["data"]["instance"]] = event["seq"]
    assert set(began) == set(ended)
    order = sorted(began, key=lambda name: began[name])
    for first, second in pairwise(order):
        assert ended[first] < began[second]


def job_with_record(place: Place, words: str = "", **keys: Any) -> Path:
    return place.job(f"--record {place.folder}/record.jsonl {words}", **keys)


def attempts(place: Place, run: str) -> list[dict[str, Any]]:
    return [each["data"] for each in place.events(run) if each["kind"] == "attempt.intended"]


def test_undisturbed(place: Place) -> None:
    run = place.launch(job_with_record(place))
    assert place.run("watch", run).returncode == 0
    check_mirror(place, ALL)
    check_intervals(place, run)
    assert len(attempts(place, run)) == 1
    pulled = place.run("pull", "30", "--to", str(place.folder / "here")).stdout
    assert str(place.folder / "here") in pulled
    assert (place.folder / "here" / "model.safetensors").is_file()
    assert place.run("pull", f"{run}:final").returncode == 0
    assert place.run("teardown", run).returncode == 0
    assert "training from step 0" in place.run("logs", run).stdout
    wait_until(lambda: place.processes() == [], 15, "no process to be left")
    assert not list((place.state / "local").glob("local-*"))


def test_a_killed_box_is_replaced_and_training_goes_on(place: Place) -> None:
    run = place.launch(job_with_record(place))
    place.wait_for(run, "checkpoint.mirrored", 3)
    place.kill_box()
    assert place.run("watch", run).returncode == 0
    check_mirror(place, ALL)
    check_intervals(place, run)
    first, second = attempts(place, run)
    assert first["instance"] != second["instance"]
    assert second["resume"]["step"] >= 30


def test_a_crash_restarts_in_place(place: Place) -> None:
    run = place.launch(job_with_record(place, "--crash-at 35"))
    assert place.run("watch", run).returncode == 0
    check_mirror(place, ALL)
    first, second = attempts(place, run)
    assert first["instance"] == second["instance"]
    assert second["resume"]["step"] == 30


def test_a_trainer_that_cannot_start_is_not_retried(place: Place) -> None:
    run = place.launch(place.job(run="no-such-program {resume}"))
    done = place.run("watch", run, check=1)
    assert "command not found" in done.stderr
    assert len(attempts(place, run)) == 1
    assert place.record(run)["still_billing"] == []


def test_a_setup_that_fails_ends_the_run_with_its_words(place: Place) -> None:
    run = place.launch(place.job(setup="echo no luck >&2; exit 3"))
    assert "no luck" in place.run("watch", run, check=1).stderr
    assert place.record(run)["still_billing"] == []


def test_a_teardown_brings_home_what_is_complete(place: Place) -> None:
    run = place.launch(job_with_record(place))
    place.wait_for(run, "checkpoint.sealed", 2)
    done = place.run("teardown", run)
    assert "still billing      nothing" in done.stdout
    assert place.record(run)["state"] == "CANCELLED"
    assert {"checkpoint-10", "checkpoint-20"} <= set(place.published())
    assert place.run("teardown", run).returncode == 0
    assert place.run("watch", run, check=1).stderr


@pytest.mark.long
def test_a_home_that_only_the_box_sees(place: Place) -> None:
    """Any shortcut through the local disk fails: the box's home is a tmpfs of its own."""
    (place.state / "config.toml").write_text("[local]\nprivate_home = true\n")
    run = place.launch(job_with_record(place, "--step-s 0.06"))
    place.wait_for(run, "attempt.started")
    homes = list((place.state / "local").glob("*/home"))
    assert homes and all(list(home.iterdir()) == [] for home in homes)
    place.wait_for(run, "checkpoint.mirrored", 2)
    place.kill_box()
    assert place.run("watch", run).returncode == 0
    check_mirror(place, ALL)


def _hear_ctrl_c() -> None:
    """A test run that was started in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_it_running(place: Place) -> None:
    run = place.launch(job_with_record(place, "--step-s 1"))
    watch = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "watch", run],
        env=place.env,
        cwd=place.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_ctrl_c,
    )
    place.wait_for(run, "attempt.started")
    watch.send_signal(signal.SIGINT)
    _, said = watch.communicate(timeout=20)
    assert watch.returncode == 130
    assert f"gpujob watch {run}" in said
    assert place.record(run)["finished_at"] is None
    place.run("teardown", run)


def test_ctrl_c_in_the_foreground_hands_the_run_to_the_daemon(place: Place) -> None:
    job = job_with_record(place, "--step-s 0.3")
    words = ["launch", str(job), "--yes", "--foreground"]
    launch = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *words],
        env=place.env,
        cwd=place.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_ctrl_c,
    )
    wait_until(lambda: "demo-" in place.run("ps").stdout, 20, "the run")
    run = json.loads(place.run("ps", "--json").stdout)["run"]
    place.wait_for(run, "checkpoint.sealed")
    launch.send_signal(signal.SIGINT)
    told, said = launch.communicate(timeout=30)
    assert launch.returncode == 130, told + said
    assert "so does what it costs" in said
    assert place.run("watch", run).returncode == 0
    check_mirror(place, ALL)
    assert len(attempts(place, run)) == 1


def test_secrets_stay_where_they_belong(place: Place) -> None:
    secret = "canary-" + hashlib.sha256(os.urandom(8)).hexdigest()
    job = job_with_record(
        place,
        secrets=["CANARY"],
        setup='test -n "$CANARY"',
        run=f"python3 trainer.py --record {place.folder}/record.jsonl "
        "--steps 40 --step-s 0.3 {resume} "
        '&& echo "the secret is $CANARY"',
    )
    run = place.launch(job, CANARY=secret)
    place.wait_for(run, "attempt.started")
    allowed = _owners(place, secret)
    box_secret = next((place.state / "local").glob("*/home/.gpujob/*/secrets.env"))
    assert secret in box_secret.read_text()
    assert box_secret.stat().st_mode & 0o777 == 0o600
    assert {name for name in allowed if name == "secrets.env"} == {"secrets.env"}
    for pid, words, environ in _processes():
        assert secret not in words, words
        trains = "trainer.py" in words or "bash" in words.split()[0:1]
        assert trains or secret not in environ, f"{pid} {words}"
    tmux = list((place.state / "local").glob("*/home/.gpujob/*/tmux.sock"))
    assert tmux
    show = ["tmux", "-S", "tmux.sock", "show-environment", "-g"]
    shown = subprocess.run(show, cwd=tmux[0].parent, capture_output=True, text=True, check=True)
    assert "PATH=" in shown.stdout and secret not in shown.stdout
    place.run("watch", run)
    assert _owners(place, secret) == set()
    assert "the secret is ***" in place.run("logs", run).stdout


def _owners(place: Place, secret: str) -> set[str]:
    """Names of the files of this place that hold the secret."""
    found = set()
    for path in place.folder.rglob("*"):
        try:
            if path.is_file() and secret.encode() in path.read_bytes():
                found.add(path.name)
        except OSError:
            continue
    return found


def _processes() -> list[tuple[str, str, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                environ = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            found.append((entry.name, words.replace("\0", " "), environ))
    return found


def _shape(place: Place, run: str) -> tuple[Any, ...]:
    """What must not depend on who was killed: the fold without its times, and what is here."""
    record = place.record(run)
    sealed = [each["data"]["name"] for each in place.events(run) if "sealed" in each["kind"]]
    return (
        record["state"],
        record["attempts"],
        record["checkpoints"],
        record["still_billing"],
        sorted(set(sealed)),
        sorted(place.published().items()),
        place.kinds(run).count("instance.intended") - place.kinds(run).count("instance.refused"),
    )


SMALL = "--step-s 0.06 --size 20000000"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What a run of SMALL comes to when nobody dies."""
    calm = Place(tmp_path_factory.mktemp("calm"))
    try:
        run = calm.launch(calm.job(SMALL))
        calm.run("watch", run)
        return _shape(calm, run)
    finally:
        calm.close()


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        ("instance.intended", 1),
        pytest.param("instance.running", 1, marks=pytest.mark.long),
        ("checkpoint.sealed", 2),
        pytest.param("drain.begun", 1, marks=pytest.mark.long),
        pytest.param("instance.terminating", 1, marks=pytest.mark.long),
    ],
    ids=["provisioning", "preparing", "transfer", "draining", "teardown"],
)
def test_a_killed_daemon_changes_nothing(
    place: Place, undisturbed: tuple[Any, ...], moment: str, count: int
) -> None:
    run = place.launch(place.job(SMALL))
    place.wait_for(run, moment, count)
    place.kill_daemon()
    assert place.run("watch", run).returncode == 0
    assert _shape(place, run) == undisturbed
    check_intervals(place, run)
