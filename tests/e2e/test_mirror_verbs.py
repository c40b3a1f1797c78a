"""The mirror of a real run: what a policy keeps, which is the best, what `verify` finds, and
`pull` of some files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kit.gpujob import Place

pytestmark = pytest.mark.e2e

# The trainer of the tests tells a loss of 9 / step: the earliest is best when more is better.
KEEP = {"last": 1, "best": {"metric": "loss", "mode": "max"}}


def damage(weights: Path) -> None:
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))


def test_what_is_kept_which_is_best_and_what_is_damaged(place: Place) -> None:
    job = place.job("--steps 40 --limit 1")
    record = json.loads(job.read_text())
    record["checkpoints"]["keep"] = KEEP
    job.write_text(json.dumps(record))
    planned = place.run("plan", str(job)).stdout
    assert "the newest 1, the best 1 by loss (highest is best)" in planned
    run = place.launch(job)
    assert place.run("watch", run).returncode == 0
    assert set(place.published()) == {"checkpoint-10", "checkpoint-40", "final"}
    lines = place.run("checkpoints", "--json").stdout.splitlines()
    told = {each["name"]: each for each in map(json.loads, lines)}
    assert {name: each["state"] for name, each in told.items()} == {
        "checkpoint-10": "verified",
        "checkpoint-20": "let go",
        "checkpoint-30": "let go",
        "checkpoint-40": "verified",
        "final": "verified",
    }
    assert told["checkpoint-10"]["best"]
    assert told["checkpoint-20"]["metrics"]["loss"] == 0.45
    assert "LOSS" in place.run("checkpoints", run).stdout

    out = place.folder / "out"
    place.run("pull", "best", "--to", str(out), "--files", "weights")
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    place.run("pull", "checkpoint-20", check=9)
    place.run("pull", "best", "--files", "weights", check=2)

    assert place.run("checkpoints", "verify").stdout.count(" ok ") == 3
    damage(place.folder / "mirror" / "checkpoint-40" / "model.safetensors")
    found = place.run("checkpoints", "verify", run, check=7)
    assert "model.safetensors: other bytes than were verified in chunk 0" in found.stdout
    assert "nobody else has it any more" in found.stderr
    broken = place.run("pull", "40", "--to", str(place.folder / "other"), check=7)
    assert "damaged" in broken.stderr
    assert not (place.folder / "other").exists()
