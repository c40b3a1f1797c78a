"""`gpujob init`: from templates and from a script, to a job that plans."""

from __future__ import annotations

import pytest
from kit.gpujob import Place

pytestmark = pytest.mark.e2e
SCRIPT = """
export HF_TOKEN=hf_not_to_be_seen
deepspeed --num_gpus=2 train.py --output_dir out > log 2>&1 &
"""


@pytest.mark.parametrize("name", ["command", "phases", "sft", "dpo"])
def test_each_template_is_a_job_file(place: Place, name: str) -> None:
    path = place.folder / f"{name}.yaml"
    said = place.run("init", str(path), "--template", name).stdout
    assert f"wrote {path}" in said and "gpujob rehearse" in said
    for folder, file in (("data", "train.jsonl"), ("data", "pairs.jsonl")):
        (place.folder / folder).mkdir(exist_ok=True)
        (place.folder / folder / file).write_text("{}\n")
    local = ["--set", "resources.providers=[local]", "--set", "resources.gpu=[cpu:1]"]
    if name == "phases":
        local += ["--set", "phases.0.resources.gpu=[cpu:1]"]
    assert place.run("plan", str(path), *local).stdout


def test_a_script_becomes_a_job_that_plans(place: Place) -> None:
    script, path = place.folder / "train.sh", place.folder / "job.yaml"
    script.write_text(SCRIPT)
    done = place.run("init", "--from", str(script), str(path))
    assert "found: deepspeed, layout huggingface, checkpoints in out, 2 GPUs" in done.stderr
    text = path.read_text()
    assert "secrets: [HF_TOKEN]" in text and "hf_not_to_be_seen" not in text
    local = ["--set", "resources.providers=[local]", "--set", "resources.gpu=[cpu:2]"]
    assert "{resume}" in text and place.run("plan", str(path), *local).stdout


def test_a_secret_in_the_command_is_refused_and_not_shown(place: Place) -> None:
    script = place.folder / "train.sh"
    script.write_text("python train.py --hub_token hf_abcdefghijklmnopqrstuvwxyz012345\n")
    done = place.run("init", "--from", str(script), check=2)
    assert "holds what looks like a secret; nothing was written" in done.stderr
    assert "hf_abcdef" not in done.stderr and "export it" in done.stderr
    assert not (place.folder / "job.yaml").exists()


def test_nothing_is_overwritten(place: Place) -> None:
    path = place.folder / "job.yaml"
    path.write_text("mine")
    done = place.run("init", str(path), check=2)
    assert "is there already; nothing was written" in done.stderr
    assert path.read_text() == "mine"


def test_a_script_that_trains_nothing_is_refused(place: Place) -> None:
    script = place.folder / "a.sh"
    script.write_text("echo hello\n")
    assert "starts no trainer" in place.run("init", "--from", str(script), check=2).stderr
    assert place.run("init", "--from", str(place.folder / "none.sh"), check=9).stderr
    assert not (place.folder / "job.yaml").exists()
