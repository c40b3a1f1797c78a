"""MAHALS: SFT and DPO, on one rank, two and eight; a resume that resumes; the reference's cache."""

from __future__ import annotations

import json

import pytest
import systems_kit as kit
from kit.gpujob import Place, wait_until

from orchestrator.core.spec import load_job

LADDER = kit.job("mahals/ladder")
NAMES = ["sft-sanity", "sft-sharded", "sft-full", "dpo-sanity", "dpo-sharded", "dpo-full"]
# Eight ranks are stood in for by four: of the stand-in's ranks only files are seen.
BOXES = ["cpu:1", "cpu:2", "cpu:4", "cpu:1", "cpu:2", "cpu:4"]


def words(place: Place, *sets: str, **env: str) -> list[str]:
    given = {"STAND_IN_STEPS": "300", **env}
    return kit.here(place, BOXES, *sets, **given)


@pytest.mark.e2e
@pytest.mark.long
def test_the_whole_ladder_with_a_crash_in_sft_and_a_lost_box_in_dpo(place: Place) -> None:
    sets = ["phases.2.env.STAND_IN_CRASH_AT='270'", "phases.5.env.STAND_IN_STEP_S='0.05'"]
    run = place.launch(LADDER, *words(place, *sets), **kit.SECRETS)
    place.wait_for(run, "phase.begun", len(NAMES), timeout_s=250)
    wait_until(lambda: kit.published(place, "dpo-full") >= {"step_50"}, 60, "its checkpoint")
    place.kill_box()
    place.run("watch", run, timeout_s=200)
    assert kit.verdicts(place, run) == [(name, "GO") for name in NAMES if "full" not in name]
    resumed = [(phase, step) for phase, step in kit.attempts(place, run) if step]
    assert resumed[0] == ("sft-full", 250)
    assert resumed[1][0] == "dpo-full" and resumed[1][1] >= 50
    logs = place.run("logs", run).stdout
    assert f"Resumed from checkpoint: output/step_{resumed[1][1]}" in logs
    references = {line.split(" - ")[-1] for line in logs.splitlines() if "the reference is" in line}
    assert references == {"the reference is the policy of step 0"}
    assert "HFValidationError" not in logs
    assert "final" in kit.published(place, "dpo-full")
    kit.check_nothing_is_left(place, run)


@pytest.mark.e2e
@pytest.mark.parametrize("curve", ["flat", "nan"])
def test_a_sanity_run_that_is_not_healthy_is_no_go(place: Place, curve: str) -> None:
    run = place.launch(LADDER, *words(place, STAND_IN_CURVE=curve), **kit.SECRETS)
    done = place.run("watch", run, check=None)
    assert done.returncode in ((5, 6) if curve == "nan" else (5,)), done.stderr
    assert {phase for phase, _ in kit.attempts(place, run)} == {"sft-sanity"}
    kit.check_nothing_is_left(place, run)


def test_no_rung_of_several_gpus_has_an_8_bit_optimizer() -> None:
    name = "configs/train_configs/mahals/llama31_8b_sft_10pct.yaml"
    for phase, job in load_job(LADDER).parts:
        several = job.resources.needs[0].count > 1
        settings = job.patch.get(name, {})
        if several and phase.name.startswith("sft"):
            assert settings["use_8bit_optimizer"] is False
        assert all(each["push_to_hub"] is False for each in job.patch.values())


@pytest.mark.e2e
def test_our_trainer_s_file_is_planned(place: Place) -> None:
    sets = kit.here(place, ["cpu:2"])
    said = place.run("plan", str(kit.job("mahals/native")), "--json", *sets)
    phases = json.loads(said.stdout)["phases"]
    assert [each["name"] for each in phases] == ["sft-trial", "sft", "dpo"]
    assert phases[2]["train"]["model"] == phases[2]["start"]["place"]
