"""No marker file is believed: a seal is later than the last close of the slowest rank."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from kit.gpujob import Place

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "stage", [pytest.param(0, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.long), 3]
)
def test_a_rank_that_is_ten_seconds_late(place: Place, stage: int) -> None:
    record = place.folder / "record.jsonl"
    job = place.job(
        resources={"gpu": "cpu:2"},
        run=f"python3 slow_rank.py --stage {stage} --record {record} # {{resume}}",
    )
    run = place.launch(job)
    place.run("watch", run)
    written = [json.loads(line) for line in record.read_text().splitlines()]
    ours = [each for each in written if each["path"].startswith("out/checkpoint-1/")]
    manifest = json.loads((place.folder / "mirror/.gpujob/manifests/checkpoint-1.json").read_text())
    sealed_at = datetime.fromisoformat(manifest["meta"]["sealed_at"]).timestamp()
    closed_at = max(each["at"] for each in ours)
    marked_at = min(each["at"] for each in ours if each["path"].endswith("trainer_state.json"))
    assert closed_at - marked_at > 9, "the writer was not late"
    assert sealed_at > closed_at
    hashes = {each["path"].removeprefix("out/checkpoint-1/"): each["sha256"] for each in ours}
    assert {each["path"]: each["sha256"] for each in manifest["files"]} == hashes
    assert place.kinds(run).count("checkpoint.sealed") == 2  # it, once, and the final weights
