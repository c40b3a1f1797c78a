"""torchllms: a trial, the training, and what an interruption costs where nothing resumes."""

from __future__ import annotations

import json

import pytest
import systems_kit as kit
from kit.gpujob import Place

from orchestrator.core.rehearsal.edits import settings_in
from orchestrator.core.spec import load_job

NAMES = ("sft", "lora", "dpo", "simpo")


def words(place: Place, **env: str) -> list[str]:
    commit = kit.repository(place.folder / "checkout")
    sets = [f"code.path={place.folder / 'checkout'}"]
    sets += [f"phases.{at}.git.commit='{commit}'" for at in (0, 1)]
    sets += [
        "setup='mkdir -p checkpoints && cp -r torchllms_data/base checkpoints/llama3.1_8b_instruct'"
    ]
    return kit.here(place, ["cpu:1"], *sets, **env)


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_trial_and_a_training_that_begins_again_after_a_crash(place: Place, name: str) -> None:
    sets = [*words(place, STAND_IN_CRASH_AT="550"), "--set", "recovery.crash=1"]
    run = place.launch(kit.job(f"torchllms/{name}"), *sets, **kit.SECRETS)
    place.run("watch", run)
    assert kit.verdicts(place, run) == [("trial", "GO")]
    # The checkpoint of step 500 is here and is nothing to resume from.
    assert kit.attempts(place, run) == [("trial", None), ("train", None), ("train", None)]
    assert kit.published(place, "train") >= {"model_0000500.pth", "model_final.pth"}
    kit.check_nothing_is_left(place, run)


@pytest.mark.e2e
def test_a_crash_is_not_paid_for_twice(place: Place) -> None:
    sets = words(place, STAND_IN_CRASH_AT="50")
    run = place.launch(kit.job("torchllms/sft"), *sets, **kit.SECRETS)
    place.run("watch", run, check=1)
    assert kit.attempts(place, run) == [("trial", None)]
    # The trainer's own exit code was 0.
    assert "torchllms ended without its final weights" in place.run("logs", run).stdout
    kit.check_nothing_is_left(place, run)


@pytest.mark.e2e
@pytest.mark.parametrize("name", NAMES)
def test_another_commit_is_refused_before_anything_is_rented(place: Place, name: str) -> None:
    kit.repository(place.folder / "checkout")
    sets = kit.here(place, ["cpu:1"], f"code.path={place.folder / 'checkout'}")
    done = place.run("plan", str(kit.job(f"torchllms/{name}")), *sets, check=2)
    assert "commit 9a85f94" in done.stderr and "nothing was rented" in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["sft", "dpo", "simpo"])
def test_our_trainer_s_files_go_on_from_the_trial(place: Place, name: str) -> None:
    path, sets = kit.job(f"torchllms/native-{name}"), kit.here(place, ["cpu:2"])
    phases = json.loads(place.run("plan", str(path), "--json", *sets).stdout)["phases"]
    assert phases[1]["start"] == {
        **phases[1]["start"],
        "phase": "trial",
        "how": "resume",
    }


@pytest.mark.parametrize("name", ["sft", "dpo", "simpo"])
def test_our_trainer_s_files_train_with_the_same_settings(name: str) -> None:
    theirs, ours = (
        load_job(kit.job(f"torchllms/{name}")),
        load_job(kit.job(f"torchllms/native-{name}")),
    )
    said, args = settings_in(theirs.run or ""), ours.parts[0][1].train.args
    rows = said["micro_batch_size_per_gpu"] * said["gradient_accum_steps"]
    assert args["global_batch_size"] == rows * theirs.resources.needs[0].count
    assert args["learning_rate"] == float(said["lr"])
    assert args.get("warmup_steps", 0) == said.get("warmup_steps", 0)
    assert args["adam_epsilon"] == 1e-6, "torchllms' default"


@pytest.mark.e2e
def test_the_plan_says_what_an_interruption_costs(place: Place) -> None:
    said = place.run("plan", str(kit.job("torchllms/sft")), *words(place)).stdout
    assert "begins at step 1 (torchllms saves weights alone)" in said
    assert "for every hour trained until then" in said
