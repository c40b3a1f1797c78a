"""SOCRATES: baseline, 500 steps, GO or NO-GO, an infrastructure test, the full run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import systems_kit as kit
from kit.gpujob import Place

from orchestrator.core.spec import load_job
from remote.trainer.evaluate.items import Columns
from remote.trainer.evaluate.items import load as load_items

FULL = kit.job("socrates/full")
NAMES = ["baseline", "validation", "judge", "infrastructure", "full"]
# Validation and full run have one number of ranks, the others one of their own.
BOXES = ["cpu:1", "cpu:2", "cpu:1", "cpu:1", "cpu:2"]
EVALUATOR = kit.STAND_IN / "evaluator" / "remote"


def words(place: Place, **env: str) -> list[str]:
    sets = [f"phases.{at}.data.2.from={EVALUATOR}/" for at in (0, 2)]
    sets += [f"phases.{at}.setup='echo set up'" for at in (0, 2)]
    return kit.here(place, BOXES, *sets, **env)


@pytest.mark.e2e
@pytest.mark.long
def test_all_five_phases_with_a_crash_in_the_full_run(place: Place) -> None:
    run = place.launch(FULL, *words(place, STAND_IN_CRASH_AT="560"), **kit.SECRETS)
    place.run("watch", run, timeout_s=300)
    assert kit.verdicts(place, run) == [(name, "GO") for name in NAMES[:4]]
    assert kit.attempts(place, run) == [
        ("baseline", None),
        ("validation", None),
        ("judge", None),
        ("infrastructure", None),
        ("full", 500),
        ("full", 500),
    ]
    # The script keeps three, and all five of the short test are here.
    tested = {f"checkpoint-{step}" for step in (10, 20, 30, 40, 50)}
    assert kit.published(place, "infrastructure") == {*tested, "final"}
    assert kit.published(place, "full") == {"checkpoint-600", "final"}
    (judged,) = (place.folder / "mirror" / "judge").glob("*/metrics.json")
    assert "checkpoint" in json.loads(judged.read_text())["results"]
    log = place.run("logs", run).stdout
    assert "Scheduler: cosine" in log
    assert "Val: 1 examples" in log and "Val: 12 examples" not in log
    kit.check_nothing_is_left(place, run)


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.parametrize(
    ("verdict", "ends"), [("no-go", ("judge", "NO-GO")), ("unsure", ("judge", "inconclusive"))]
)
def test_what_does_not_improve_is_no_go_and_what_may_be_chance_is_asked(
    place: Place, verdict: str, ends: tuple[str, str]
) -> None:
    run = place.launch(FULL, *words(place, STAND_IN_VERDICT=verdict), **kit.SECRETS)
    if verdict == "no-go":
        done = place.run("watch", run, check=5, timeout_s=300)
        assert "5 % are asked" in done.stderr
    else:
        place.wait_for(run, "phase.held", timeout_s=200)
        assert place.run("approve", run, "--no").returncode == 0
        assert place.wait_end(run)["state"] == "CANCELLED"
    assert kit.verdicts(place, run)[-1] == ends
    kit.check_nothing_is_left(place, run)


@pytest.mark.e2e
def test_a_baseline_that_cannot_be_read_ends_the_run_before_anything_is_trained(
    place: Place,
) -> None:
    run = place.launch(FULL, *words(place, STAND_IN_PARSE_RATE="0.6"), **kit.SECRETS)
    done = place.run("watch", run, check=5)
    assert "baseline_parse_rate" in done.stderr
    assert kit.attempts(place, run) == [("baseline", None)]
    kit.check_nothing_is_left(place, run)


def test_the_validation_is_the_beginning_of_the_full_run() -> None:
    parts = {phase.name: (phase, job) for phase, job in load_job(FULL).parts}
    (_, validation), (full, whole) = parts["validation"], parts["full"]
    assert validation.run == whole.run
    start = full.start_from
    assert start and (start.phase, start.how) == ("validation", "resume")
    for _, job in parts.values():
        assert "deepspeed_config.json" not in (job.run or ""), "it brings a schedule of its own"


@pytest.mark.e2e
def test_our_trainer_s_file_is_planned(place: Place) -> None:
    sets = kit.here(place, ["cpu:2"])
    said = place.run("plan", str(kit.job("socrates/native")), "--json", *sets)
    assert [each["name"] for each in json.loads(said.stdout)["phases"]] == ["validation", "full"]


def load(name: str) -> ModuleType:
    path = kit.JOBS / "socrates" / "evaluation" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"socrates_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("asked", "answer", "scale"),
    [
        ("Only return an integer from 1 to 7, nothing else.", "Response: 3", (1, 7)),
        ("from 1 (Not at all) to 5 (Very), how? from 0 to 10, nothing", "Response: 10", (0, 10)),
        ("On a scale from 1 (Not at all extreme) to 5 (Very extreme)?", "Response: 4", (1, 5)),
        ("Only return 1 for Yes or 2 for No, nothing else.", "Response: 1", None),
        ("Only return an integer from 1 to 7, nothing else.", "Response: 9", None),
        ("fell from -5 to 5 points.", "Response: -2", (-5, 5)),
    ],
    ids=["plain", "the last scale", "with words", "none", "an answer off it", "negative"],
)
def test_the_scale_is_the_question_s(
    asked: str, answer: str, scale: tuple[int, int] | None
) -> None:
    row = {
        "instruction": "I",
        "input": asked,
        "output": answer,
        "study_id": "s",
        "condition_num": 0,
    }
    item = load("items").item(row)
    assert (item.get("scale_min"), item.get("scale_max")) == (scale or (None, None))
    assert item["prompt"].endswith("### Response:\n") and item["completion"] == answer


def test_the_evaluation_takes_the_items(tmp_path: Path) -> None:

    source = kit.STAND_IN / "data" / "socsci210_full" / "val.jsonl"
    rows = [load("items").item(json.loads(line)) for line in source.open()]
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = load_items([str(file)], Columns(), most=None, seed=1, key="socrates.data")
    assert len(found.asked) == 12 and found.observed == 0


def test_what_is_not_a_number_is_not_told() -> None:
    result = {"wasserstein": 0.18, "parse_rate": 1.0, "accuracy": None, "distinct_answers": 3}
    told = load("tell").numbers({"results": {"baseline": {"socrates": result}}})
    assert told["baseline_parse_rate"] == 1.0
    assert "baseline_accuracy" not in told
