"""A run that goes on from a checkpoint ends with the same bytes; what cannot go on says why."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from trainer_place import Place, chat, write

from remote.trainer.problems import TrainError
from remote.trainer.tiny_model import build

pytestmark = pytest.mark.trainer
# 40 rows and 4 a step are 10 steps an epoch: the resume is within one and passes into the next.
ARGS = {"max_steps": 14, "save_strategy": "steps", "save_steps": 7, "warmup_steps": 3}
LORA = {"r": 4, "alpha": 8, "dropout": 0.2}
RUNS: dict[str, dict[str, Any]] = {
    "sft": {},
    "sft-lora": {"lora": LORA},
    "sft-packed": {"packing": True, "args": {"per_device_train_batch_size": 1}},
    "dpo": {"method": "dpo"},
    "dpo-lora": {"method": "dpo", "lora": LORA},
    "simpo-lora": {"method": "simpo", "lora": LORA},
}


@pytest.mark.parametrize("name", RUNS)
def test_to_the_byte(trainer_place: Place, name: str) -> None:
    changes = {**RUNS[name], "args": {**ARGS, **RUNS[name].get("args", {})}}
    trainer_place.run(f"{name}-straight", **changes)
    straight = trainer_place.folder / f"{name}-straight"
    broken = trainer_place.folder / f"{name}-broken"
    # The box is new, and all that came along is the checkpoint.
    shutil.copytree(straight / "checkpoint-7", broken / "checkpoint-7")
    trainer_place.run(f"{name}-broken", resume=f"{name}-broken/checkpoint-7", **changes)

    first, second = (trainer_place.history(f"{name}-{how}") for how in ("straight", "broken"))
    assert [record["step"] for record in second] == list(range(1, 15))
    exact = ("loss", "grad_norm", "learning_rate", "tokens")
    assert [[r[key] for key in exact] for r in second] == [[r[key] for key in exact] for r in first]
    files = sorted(path.name for path in (straight / "checkpoint-14").iterdir())
    weights = "adapter_model.safetensors" if "lora" in changes else "model.safetensors"
    assert {weights, "optimizer.pt", "rng_state.pth", "scheduler.pt"} <= set(files)
    for file in files:
        if file not in ("trainer_state.json", "gpujob_complete.json"):
            one, other = (folder / "checkpoint-14" / file for folder in (straight, broken))
            assert one.read_bytes() == other.read_bytes(), file


@pytest.fixture(scope="module")
def checkpoint(trainer_place: Place) -> Path:
    trainer_place.run("origin", method="dpo", args=ARGS)
    return trainer_place.folder / "origin" / "checkpoint-7"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"method": "simpo"}, "was trained with method 'dpo', and this run has 'simpo'"),
        ({"lora": True}, "was trained with trains 'all weights'"),
        ({"args": {"seed": 7}}, "was trained with seed 42, and this run has 7"),
        ({"max_seq_length": 44}, "max_seq_length changed: the order would not be kept"),
        ({"args": {"global_batch_size": 8}}, "global_batch_size: is 8, and the checkpoint"),
        ({"args": {"max_steps": 3}}, "max_steps: is 3, and"),
        ({"model": "no/such/model"}, "no/such/model: no tokenizer"),
        ({"args": {"bf16": True}}, "was trained with precision 'float32', and this run has 'bfl"),
        ({"args": {"weight_decay": 0.1}}, "weight_decay=0 betas=(0.9, 0.999) eps=1e-08', and this"),
        ({"args": {"adam_beta2": 0.95}}, "this run has 'adamw_torch_fused weight_decay=0 betas=(0"),
        ({"args": {"optim": "adamw_torch"}}, "was trained with optimizer 'adamw_torch_fused"),
        ({"args": {"max_steps": 9, "max_grad_norm": 0.3, "learning_rate": 1e-4}}, None),
    ],
    ids=[
        *("method", "adapters", "seed", "length", "batch", "past", "name", "precision"),
        *("decay", "betas", "optim", "shorter"),
    ],
)
def test_another_run(
    trainer_place: Place, checkpoint: Path, changes: dict[str, Any], problem: str | None
) -> None:
    args = {**ARGS, **changes.pop("args", {})}
    name = checkpoint.relative_to(trainer_place.folder).as_posix()
    settings = {"method": "dpo", **changes, "args": args}
    if problem is None:
        assert trainer_place.run("other", resume=name, **settings) == 0
        return
    with pytest.raises(TrainError) as caught:
        trainer_place.run("other", resume=name, **settings)
    assert problem in "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dropout": 0.1}, "was trained with dropout 0.2, and this run has 0.1"),
        ({"modules_to_save": ["lm_head"]}, "all-linear', and this run has 'lora r=4 alpha=8 all-"),
    ],
    ids=["dropout", "modules"],
)
def test_other_adapters(trainer_place: Place, change: dict[str, Any], problem: str) -> None:
    args = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer_place.run("adapters", lora=LORA, args=args)
    with pytest.raises(TrainError) as caught:
        trainer_place.run(
            "other", resume="adapters/checkpoint-1", lora={**LORA, **change}, args=args
        )
    assert problem in "\n".join(caught.value.problems)


def test_another_model(trainer_place: Place, tmp_path: Path) -> None:
    """Of another name, or of the same name and not the same."""
    for model in ("kept", "swapped"):
        shutil.copytree(trainer_place.folder / "tiny", tmp_path / model)
    changes: dict[str, Any] = {"args": {**ARGS, "max_steps": 2, "save_steps": 1}}
    trainer_place.run("first", model=str(tmp_path / "swapped"), **changes)
    with pytest.raises(TrainError, match=r"/kept'.*\(a checkpoint of another model\)"):
        trainer_place.run(
            "other", resume="first/checkpoint-1", model=str(tmp_path / "kept"), **changes
        )
    build(
        tmp_path / "swapped",
        [trainer_place.folder / "text.txt"],
        hidden=64,
        vocabulary=300,
        spread=0.1,
    )
    with pytest.raises(TrainError, match=r"2 layers of 64.*\(a checkpoint of another model\)"):
        trainer_place.run(
            "other", resume="first/checkpoint-1", model=str(tmp_path / "swapped"), **changes
        )


def test_more_data_is_other_data(trainer_place: Place, checkpoint: Path) -> None:
    rows = [{"chosen": chat(i), "rejected": chat(i, shift=5)} for i in range(41)]
    more = write(trainer_place.folder / "more.jsonl", rows)
    with pytest.raises(TrainError, match="the order would not be kept"):
        trainer_place.run(
            "other", resume="origin/checkpoint-7", method="dpo", data=str(more), args=ARGS
        )


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "reference_logprobs.safetensors").unlink(), "is missing. DPO"),
        (
            lambda folder: (folder / "reference_logprobs.safetensors").write_bytes(b"torn"),
            "cannot be read",
        ),
        (lambda folder: (folder / "trainer_state.json").write_text('{"gl'), "is torn"),
        (lambda folder: (folder / "trainer_state.json").unlink(), "is not a checkpoint"),
        (
            lambda folder: (folder / "trainer_state.json").write_text('{"global_step": 7}'),
            "was not written by this trainer",
        ),
        (
            lambda folder: (folder / "trainer_state.json").write_text(
                '{"global_step": 7, "gpujob": {}}'
            ),
            "trainer_state.json is not whole: 'ranks'",
        ),
        (lambda folder: (folder / "optimizer.pt").unlink(), "holds no optimizer.pt"),
        (lambda folder: _tear(folder / "optimizer.pt"), "optimizer.pt cannot be read: "),
        (lambda folder: torch.save([], folder / "optimizer.pt"), "optimizer.pt cannot be read: "),
        (lambda folder: (folder / "rng_state.pth").unlink(), "rng_state.pth cannot be read: "),
        (lambda folder: _tear(folder / "rng_state.pth"), "rng_state.pth cannot be read: "),
        (lambda folder: torch.save({}, folder / "rng_state.pth"), "rng_state.pth cannot be read"),
        (lambda folder: _tear(folder / "model.safetensors"), "checkpoint-7: cannot be loaded: "),
    ],
    ids=[
        *("no-reference", "torn-reference", "torn-state", "no-state", "foreign", "no-ranks"),
        *("no-optimizer", "torn-optimizer", "other-optimizer", "no-random", "torn-random"),
        *("other-random", "torn-weights"),
    ],
)
def test_what_is_not_whole(
    trainer_place: Place, checkpoint: Path, tmp_path: Path, spoil: Any, problem: str
) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint-7")
    spoil(tmp_path / "checkpoint-7")
    with pytest.raises(TrainError) as caught:
        trainer_place.run("spoilt", resume=str(tmp_path / "checkpoint-7"), method="dpo", args=ARGS)
    (said,) = caught.value.problems
    assert said.startswith(("resume: ", "checkpoint: "))
    assert problem in said


def _tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def test_torn_adapters(trainer_place: Place, tmp_path: Path) -> None:
    args = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer_place.run("torn", lora=LORA, args=args)
    shutil.copytree(trainer_place.folder / "torn" / "checkpoint-1", tmp_path / "checkpoint-1")
    _tear(tmp_path / "checkpoint-1" / "adapter_model.safetensors")
    with pytest.raises(TrainError, match=r"^checkpoint: .*checkpoint-1: cannot be loaded"):
        trainer_place.run("torn", resume=str(tmp_path / "checkpoint-1"), lora=LORA, args=args)


def test_what_was_just_written_is_kept(trainer_place: Place) -> None:
    """A resume from before the youngest: what is younger is none of the run's own yet."""
    args = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    trainer_place.run("limited", args=args)
    again = {**args, "max_steps": 2, "save_total_limit": 1}
    trainer_place.run("limited", resume="limited/checkpoint-1", args=again)
    folder = trainer_place.folder / "limited"
    names = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert names == ["checkpoint-2", "checkpoint-3"]
    marked = [path.parent.name for path in folder.glob("checkpoint-*/gpujob_complete.json")]
    assert marked == ["checkpoint-2"]


def test_a_reference_of_fewer_steps(trainer_place: Place) -> None:
    short = {**ARGS, "max_steps": 4, "save_steps": 4, "schedule_steps": 14}
    trainer_place.run("short", method="dpo", args=short)
    with pytest.raises(TrainError, match="the reference of the steps up to 4 only"):
        trainer_place.run("longer", resume="short/checkpoint-4", method="dpo", args=ARGS)


def test_a_trial_is_a_true_beginning(trainer_place: Place) -> None:
    """With `schedule_steps` a short run's checkpoint goes on as if it had been the long one."""
    trainer_place.run("long", args=ARGS)
    short = {**ARGS, "max_steps": 7, "schedule_steps": 14}
    trainer_place.run("trial", args=short)
    trainer_place.run("trial-on", resume="trial/checkpoint-7", args=ARGS)
    assert trainer_place.losses("trial-on") == trainer_place.losses("long")


def test_state_says_what_others_read(checkpoint: Path) -> None:
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert (state["global_step"], state["max_steps"]) == (7, 14)
    assert [record["step"] for record in state["log_history"]] == list(range(1, 8))


def test_evaluation_brings_its_reference_along(trainer_place: Place) -> None:
    held_out = write(
        trainer_place.folder / "held.jsonl",
        [{"chosen": chat(i + 3), "rejected": chat(i, shift=2)} for i in range(6)],
    )
    changes = {
        "method": "dpo",
        "evaluate": {"data": str(held_out), "every": 7},
        "args": {**ARGS, "per_device_eval_batch_size": 4, "learning_rate": 0.0},
    }
    trainer_place.run("evaluated", **changes)
    trainer_place.run("evaluated-on", resume="evaluated/checkpoint-7", **changes)
    for out in ("evaluated", "evaluated-on"):
        losses = [r["eval_loss"] for r in trainer_place.history(out) if "eval_loss" in r]
        assert losses == pytest.approx([math.log(2)] * 2, abs=1e-6)
