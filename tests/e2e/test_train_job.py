"""`train:` jobs through all of gpujob: what the file says is what is trained, evaluated and sent
home, for a method each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deepspeed")

import trainer_kit
from kit.gpujob import Place

pytestmark = [pytest.mark.e2e, pytest.mark.trainer]
STEPS = 4
ARGS = {
    "max_steps": STEPS,
    "save_steps": 2,
    "global_batch_size": 4,
    "per_device_train_batch_size": 2,
    "learning_rate": 0.01,
}
GAD = {"rollouts": 2, "max_new_tokens": 4, "critic_warmup": 1}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = trainer_kit.workshop(tmp_path_factory.mktemp("workshop"))
    trainer_kit.write_pairs(folder)
    trainer_kit.write_distillation(folder)
    return folder


def test_dpo_is_launched_evaluated_and_mirrored(place: Place, workshop: Path) -> None:
    train = {
        "method": "dpo",
        "data": "pairs.jsonl",
        "lora": {"rank": 4, "alpha": 8},
        "dpo": {"beta": 0.2, "label_smoothing": 0.1},
        "evaluate": {"data": "pairs.jsonl", "every": 2, "max_examples": 6},
    }
    run = _train(place, workshop, train)

    lines = _metrics(place, run)
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4]
    # Policy and reference are the same at first: h is 0, and the loss log 2 whatever beta is.
    assert trained[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert {"rewards/margins", "rewards/accuracies"} <= set(trained[0])
    assert [line["step"] for line in lines if "eval_loss" in line] == [2, 4]

    assert set(place.published()) == {"checkpoint-2", "checkpoint-4", "final"}
    last = place.folder / "mirror" / "checkpoint-4"
    assert (last / "reference_logprobs.safetensors").is_file()
    adapter = json.loads((last / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (4, 8)
    best = place.run("pull", f"{run}:best", "--to", str(place.folder / "best")).stdout
    assert "verified" in best


@pytest.mark.long
def test_simpo_on_two_ranks_under_zero(place: Place, workshop: Path) -> None:
    zero = {"zero_optimization": {"stage": 2}, "train_batch_size": "auto"}
    train = {"method": "simpo", "data": "pairs.jsonl", "full": True, "deepspeed": zero}
    run = _train(place, workshop, train, ranks=2)
    assert len([line for line in _metrics(place, run) if "loss" in line]) == STEPS
    assert (place.folder / "mirror" / "checkpoint-4" / "global_step4").is_dir()


@pytest.mark.long
def test_gad_s_second_stage_begins_with_what_the_first_sent_home(
    place: Place, workshop: Path, tmp_path: Path
) -> None:
    train = {"method": "gad", "data": "distill.jsonl", "lora": {"rank": 4}}
    _train(place, workshop, {**train, "gad": GAD})
    (place.folder / "mirror").rename(tmp_path / "warm-up")
    later = {**GAD, "stage": "adversarial", "warmup_from": "warm-up", "critic_warmup": 0}
    warm = {"from": str(tmp_path / "warm-up" / "final"), "to": "warm-up/"}
    run = _train(place, workshop, {**train, "gad": later}, data=[warm])
    first = _metrics(place, run)[0]
    assert first["gad/kl"] == pytest.approx(0, abs=1e-6)  # the reference is the warm-up's policy


def test_a_mistake_that_the_box_would_find_is_told_before_anything_is_rented(
    place: Place, workshop: Path
) -> None:
    job = _job(place, workshop, {"method": "sft", "data": "none.jsonl", "full": True}, ranks=1)
    told = place.run("launch", str(job), "--yes", check=2).stderr
    assert "train.data: none.jsonl is not among the files that are uploaded" in told
    assert "nothing was rented" in told
    assert not (place.state / "runs").exists()


def _train(
    place: Place, workshop: Path, train: dict[str, Any], *, ranks: int = 1, data: Any = ()
) -> str:
    run = place.launch(_job(place, workshop, train, ranks=ranks, data=data))
    place.run("watch", run)
    assert place.record(run)["state"] == "SUCCEEDED", place.run("logs", run).stdout
    return run


def _job(
    place: Place, workshop: Path, train: dict[str, Any], *, ranks: int, data: Any = ()
) -> Path:
    names = ("tiny", "chat.jsonl", "pairs.jsonl", "distill.jsonl")
    files = [{"from": str(workshop / name), "to": f"{name}{_slash(name)}"} for name in names]
    mirror = {"path": "out", "mirror": str(place.folder / "mirror")}
    keep = {"last": 5, "best": {"metric": "eval_loss"}}
    job = {
        "name": "demo",
        "code": {"path": "code"},
        "resources": {"gpu": f"cpu:{ranks}"},
        "env": {"OMP_NUM_THREADS": "1"},
        "data": [*files, *data],
        "train": {"model": "tiny", "max_seq_length": 64, **train, "args": dict(ARGS)},
        "checkpoints": {**mirror, "keep": keep},
    }
    path = place.folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def _slash(name: str) -> str:
    return "" if "." in name else "/"


def _metrics(place: Place, run: str) -> list[dict[str, Any]]:
    files = sorted((place.state / "runs" / run).glob("*/metrics.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
