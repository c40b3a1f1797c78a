"""Chai: a warm-up on one branch, the adversarial stage on another, from its last checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import systems_kit as kit
from kit.gpujob import Place

from orchestrator.core.spec import load_job

pytestmark = pytest.mark.e2e
SIZES = ("3b", "7b", "14b")


def words(place: Place, *, gad: str = "gad", **env: str) -> list[str]:
    """Two checkouts, one a branch, as the phases want them."""
    sets = []
    for at, (name, branch) in enumerate((("verl-warmup", "warmup"), ("verl-gad", gad))):
        kit.repository(place.folder / name, branch=branch)
        sets.append(f"phases.{at}.code.path={place.folder / name}")
    sets += ["resources.image=auto", "checkpoints.size_gb=0.001"]
    sets.append("setup='mkdir -p model && touch model/config.json'")
    given = {"STAND_IN_STEPS": "300", "STAND_IN_SAVE_S": "0.5", **env}
    return kit.here(place, ["cpu:2"], *sets, **given)


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES)
def test_both_stages_with_a_crash_in_the_second(place: Place, size: str) -> None:
    env = {"STAND_IN_CRASH_AT": "450"}
    run = place.launch(kit.job(f"chai/{size}"), *words(place, **env), **kit.SECRETS)
    place.run("watch", run)
    assert kit.verdicts(place, run) == [("warmup", "GO")]
    assert kit.attempts(place, run) == [
        ("warmup", None),
        ("adversarial", None),
        ("adversarial", 400),
    ]
    log = place.run("logs", run).stdout
    # It goes on at the warm-up's last step, and its "4 epochs" are as many new steps again.
    assert log.count("Setting global step to 300") == 1
    assert "Setting global step to 400" in log and "step:600 - " in log
    # Whatever it is resumed from, its reference is the warm-up's policy.
    references = [line for line in log.splitlines() if "actor_rollout_ref.model.path is" in line]
    assert [line.count("global_step_300/actor/huggingface") for line in references] == [0, 1, 1]
    # What was linked in is not taken for a checkpoint of this stage. The last step is the final
    # checkpoint too: equal trees are here once, under the name that came first.
    there = kit.published(place, "adversarial")
    assert "global_step_500" in there and there & {"global_step_600", "final"}
    assert "global_step_300" not in there
    assert kit.published(place, "warmup") & {"global_step_300", "final"}
    assert not list(Path("/tmp").glob(f"{run}-*")), "the links are taken away"
    kit.check_nothing_is_left(place, run)


@pytest.mark.long
def test_a_second_stage_that_makes_no_step_is_no_success(place: Place) -> None:
    sets = [*words(place, STAND_IN_NO_ROWS="1"), "--set", "recovery.crash=0"]
    run = place.launch(kit.job("chai/7b"), *sets, **kit.SECRETS)
    place.run("watch", run, check=1)
    assert kit.attempts(place, run) == [("warmup", None), ("adversarial", None)]
    assert "verl made no step after 300" in place.run("logs", run).stdout
    kit.check_nothing_is_left(place, run)


def test_a_checkout_of_another_branch_is_refused_before_anything_is_rented(place: Place) -> None:
    sets = words(place, gad="main")
    done = place.run("plan", str(kit.job("chai/7b")), *sets, check=2)
    assert "adversarial runs the code of branch gad" in done.stderr
    assert "nothing was rented" in done.stderr


def test_235b_is_refused_with_the_reason(place: Place) -> None:
    for verb in (["plan"], ["launch", "--yes"]):
        done = place.run(*verb, str(kit.job("chai/235b")), check=2)
        for word in ("no Qwen2.5-235B-Instruct", "5,640 GB", "1,536 GB", "nothing was rented"):
            assert word in " ".join(done.stderr.split())


def test_a_disk_too_small_for_what_is_kept_is_refused(place: Place) -> None:
    sets = [*words(place), "--set", "checkpoints.size_gb=183", "--set", "resources.disk_gb=150"]
    done = place.run("plan", str(kit.job("chai/7b")), *sets, check=2)
    assert "resources.disk_gb" in done.stderr


@pytest.mark.parametrize(("size", "gb"), [("3b", 74), ("7b", 183), ("14b", 355)])
def test_the_disk_holds_what_is_kept_written_and_on_its_way(size: str, gb: int) -> None:
    job = load_job(kit.job(f"chai/{size}"))
    assert job.checkpoints.size_gb == gb
    assert (job.resources.disk_gb or 0) > 4 * gb + 50
    assert {need.count for need in job.resources.needs} == {8}, "shards of eight ranks"


def test_our_trainer_s_file_is_planned(place: Place) -> None:
    sets = kit.here(place, ["cpu:1"])
    said = place.run("plan", str(kit.job("chai/native")), "--json", *sets)
    first, second = json.loads(said.stdout)["phases"]
    assert first["train"]["gad"]["stage"] == "warmup"
    assert second["train"]["gad"]["warmup_from"] == second["start"]["place"]
