"""The fine-tuning guide's three presets, and the same by our trainer."""

from __future__ import annotations

import json

import pytest
import systems_kit as kit
from kit.gpujob import Place

from orchestrator.core.spec import load_job

pytestmark = pytest.mark.e2e
PRESETS = ("4090", "a40", "a100")


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_tried_crashes_resumes_and_ends(place: Place, preset: str) -> None:
    words = kit.here(place, ["cpu:1"], STAND_IN_CRASH_AT="250")
    run = place.launch(kit.job(f"finetune/{preset}"), *words, **kit.SECRETS)
    place.run("watch", run)
    assert kit.verdicts(place, run) == [("trial", "GO")]
    first, second, third = kit.attempts(place, run)
    assert first == ("trial", None)
    assert second == ("main", 200)
    assert third == ("main", 200), "200 is the newest checkpoint before the crash at 250"
    assert kit.published(place, "main") == {"checkpoint-300", "final"}
    assert "batch=16" in place.run("logs", run).stdout
    kit.check_nothing_is_left(place, run)


def test_a_loss_that_stays_is_no_go_and_ends_the_run(place: Place) -> None:
    words = kit.here(place, ["cpu:1"], STAND_IN_CURVE="flat")
    run = place.launch(kit.job("finetune/4090"), *words, **kit.SECRETS)
    done = place.run("watch", run, check=5)
    assert "loss_drop" in done.stderr
    assert [phase for phase, _ in kit.attempts(place, run)] == ["trial"]
    kit.check_nothing_is_left(place, run)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_steps_of_sixteen_rows(preset: str) -> None:
    set_to = load_job(kit.job(f"finetune/{preset}")).patch["configs/my_config.yaml"]["training"]
    assert set_to["per_device_train_batch_size"] * set_to["gradient_accumulation_steps"] == 16


def test_our_trainer_s_file_is_planned(place: Place) -> None:
    said = place.run("plan", str(kit.job("finetune/native")), "--json", *kit.here(place, ["cpu:1"]))
    phases = json.loads(said.stdout)["phases"]
    assert [each["name"] for each in phases] == ["trial", "main"]
    assert all(each["train"]["args"]["global_batch_size"] == 16 for each in phases)
