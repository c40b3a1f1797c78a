"""The demo job on both emulated clouds, with only provider and GPU changed, and a pod that is lost
in the middle. The ledger's cost is the billing log's to 1 %."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kit.cloud import Cloud
from kit.gpujob import Place
from kit.rented import config

pytestmark = [pytest.mark.e2e, pytest.mark.trainer]

ROOT = Path(__file__).parents[2]
RENT = {
    "runpod": ("[runpod]", "[A40:2]"),
    "thunder": ("[thunder]", "[A100:2]"),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the demo's own inputs made."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "jobs", folder / "jobs", ignore=shutil.ignore_patterns(".trainer-cache"))
    place, texts = folder / ".demo", str(folder / ".demo" / "text.txt")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = [
        ["jobs/demo/make_data.py", "--out", str(place / "data" / "chat.parquet"), "--texts", texts],
        ["-m", "remote.trainer.tiny", "--out", str(place / "model"), "--texts", texts],
    ]
    for words in made:
        subprocess.run([sys.executable, *words], cwd=ROOT, env=env, check=True, timeout=120)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("kind", ["runpod", "thunder"])
def test_the_demo_job_survives_a_lost_pod(tmp_path: Path, demo: Path, kind: str) -> None:
    cloud = Cloud.start(tmp_path / "cloud", kind, requests_per_minute=100000)
    place = Place(tmp_path / "place")
    (place.state / "config.toml").write_text(config(kind))
    mirror = tmp_path / "mirror"
    provider, gpu = RENT[kind]
    words = [
        *("launch", str(demo / "jobs" / "demo.yaml"), "--yes", "--detach"),
        *("--set", f"resources.providers={provider}", "--set", f"resources.gpu={gpu}"),
        *("--set", f"checkpoints.mirror={mirror}"),
    ]
    try:
        said = place.run(*words, **cloud.env()).stdout
        run = said.split("launched ")[1].split()[0]
        place.wait_for(run, "checkpoint.mirrored", 3, timeout_s=150)
        (pod,) = cloud.instances()
        cloud.end(pod["id"])
        assert place.run("watch", run, check=None, timeout_s=240).returncode == 0
        folders = {path.name for path in mirror.iterdir() if not path.name.startswith(".")}
        expected = {f"checkpoint-{step}" for step in range(10, 61, 10)} | {"final"}
        assert {name.partition("~")[0] for name in folders} == expected
        resumes = [
            each["data"]["resume"]
            for each in place.events(run)
            if each["kind"] == "attempt.intended"
        ]
        assert len(resumes) == 2 and resumes[1]["step"] >= 10
        bill = cloud.bill()
        assert bill["running"] == [] and cloud.instances() == []
        assert len({each["instance"] for each in bill["intervals"]}) == 2
        told = json.loads(place.run("cost", run, "--json").stdout.splitlines()[0])
        assert told["cost_usd"] == pytest.approx(bill["total_usd"], rel=0.01)
        assert cloud.violations() == []
    finally:
        place.close()
        cloud.close()
