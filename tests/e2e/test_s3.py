"""Checkpoints that survive a closed laptop: pushed by the box while nobody listens, and resumed
from and pulled out of S3 when the box is gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.gpujob import Place, wait_until
from kit.s3 import BUCKET, KEYS, keys_of, moto, open_bucket

pytestmark = pytest.mark.e2e

PAIR = {"GPUJOB_S3_KEY_ID": KEYS.key_id, "GPUJOB_S3_SECRET": "canary-of-the-s3-secret"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto() as url:
        yield url


def also_job(place: Place, url: str, words: str) -> Path:
    (place.state / "config.toml").write_text(f'[s3]\nendpoint_url = "{url}"\n')
    checkpoints = {
        "path": "out",
        "resume": {"args": "--resume {checkpoint}"},
        "mirror": str(place.folder / "mirror"),
        "also": f"s3://{BUCKET}/{place.folder.name}",
    }
    return place.job(words, checkpoints=checkpoints)


def in_s3(url: str, run: str) -> set[str]:
    """Names of the checkpoints with a manifest."""
    keys = [key for key in keys_of(open_bucket(url)) if f"/{run}/" in key]
    return {key.split("/")[2].rpartition(".")[0] for key in keys if key.endswith("manifest.json")}


def resumes(place: Place, run: str) -> list[Any]:
    told = [each["data"] for each in place.events(run) if each["kind"] == "attempt.intended"]
    return [each["resume"] and each["resume"]["name"] for each in told]


def test_a_closed_laptop_and_a_lost_box_cost_nothing(place: Place, url: str) -> None:
    run = place.launch(also_job(place, url, "--steps 60 --step-s 0.15"), **PAIR)
    place.wait_for(run, "checkpoint.sealed")
    place.kill_daemon()
    wait_until(lambda: "checkpoint-20" in in_s3(url, run), 60, "pushes without a controller")
    _check_secrets(place)
    place.kill_box()
    left = in_s3(url, run)
    done = place.run("watch", run)
    assert "unheard of" in done.stdout
    held = max(int(name.removeprefix("checkpoint-")) for name in left - {"final"})
    first, *later = resumes(place, run)
    assert first is None
    # On a busy machine the trainer may have come to its end: then nothing is trained again.
    assert len(later) == (0 if "final" in left else 1)
    assert all(int(name.removeprefix("checkpoint-")) >= held >= 20 for name in later)
    assert set(place.published()) >= {*left, "checkpoint-60", "final"}
    assert in_s3(url, run) >= {"checkpoint-60", "final"}
    assert place.record(run)["state"] == "SUCCEEDED"
    assert _holding(place.state) == set()


def _check_secrets(place: Place) -> None:
    """The pair is in two 0600 files, and in no argv, environment or log."""
    found = _holding(place.folder)
    assert {path.name for path in found} == {"s3.env"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in found)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            for name in ("cmdline", "environ"):
                try:
                    text = (entry / name).read_bytes()
                except OSError:
                    continue
                assert PAIR["GPUJOB_S3_SECRET"].encode() not in text, entry


def _holding(folder: Path) -> set[Path]:
    secret = PAIR["GPUJOB_S3_SECRET"].encode()
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path for path in files if secret in path.read_bytes()}


def test_what_is_only_in_s3_is_pulled_from_there(place: Place, url: str) -> None:
    """It is lost here after the run; what S3 has is fetched by the command itself."""
    run = place.launch(also_job(place, url, "--steps 20 --step-s 0.05 --size 100000"), **PAIR)
    place.run("watch", run)
    assert in_s3(url, run) >= {"checkpoint-20", "final"}
    digest = place.published()["checkpoint-20"]
    shutil.rmtree(place.folder / "mirror" / "checkpoint-20")
    refused = place.run("pull", "20", check=2)
    assert "GPUJOB_S3_KEY_ID" in refused.stderr
    said = place.run("pull", "20", "--to", str(place.folder / "copy"), **PAIR)
    assert place.published()["checkpoint-20"] == digest
    assert (place.folder / "mirror" / "checkpoint-20" / "optimizer.pt").is_file()
    assert (place.folder / "copy" / "model.safetensors").is_file(), said.stdout
    assert _holding(place.state) == set()


def test_a_bucket_that_is_none_is_told_before_anything_is_rented(place: Place, url: str) -> None:
    job = also_job(place, url, "--steps 20")
    text = job.read_text().replace(f"s3://{BUCKET}/", "s3://no-such-bucket/")
    job.write_text(text)
    done = place.run("launch", str(job), "--yes", "--detach", check=2, **PAIR)
    assert "no bucket no-such-bucket" in done.stderr and "nothing was rented" in done.stderr
    assert not (place.state / "local").exists()
    without = place.run("launch", str(job), "--yes", "--detach", check=2)
    assert "GPUJOB_S3_KEY_ID" in without.stderr


def test_doctor_tries_the_place(place: Place, url: str) -> None:
    also_job(place, url, "")
    done = place.run("doctor", "--s3", f"s3://{BUCKET}/prefix", check=None, **PAIR)
    assert "an object could be written and read, and deleted" in done.stdout
    assert f"may list all of {BUCKET}" in done.stdout
    assert PAIR["GPUJOB_S3_SECRET"] not in done.stdout + done.stderr
