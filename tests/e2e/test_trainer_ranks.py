"""The number of ranks, and what shards the optimizer, change nothing; nor does a resume, be it on
as many ranks (to the bit) or on another number (through DeepSpeed's Universal Checkpoint)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deepspeed")

import torch
import trainer_kit as kit
from safetensors.torch import load_file

pytestmark = [pytest.mark.e2e, pytest.mark.trainer]
ARGS = {
    "global_batch_size": 8,
    "learning_rate": 0.001,
    "max_steps": 24,
    "save_steps": 4,
    "weight_decay": 0.1,
    "warmup_steps": 3,
}
DROPPING = {"r": 4, "alpha": 8, "dropout": 0.2}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft", "full": True},
    "dpo": {"method": "dpo", "lora": DROPPING, "data": "pairs.jsonl"},
    "simpo": {"method": "simpo", "full": True, "data": "pairs.jsonl"},
    "sft-bf16": {"method": "sft", "full": True, "args": {"bf16": True}},
}
OFFLOAD = {
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu"},
        "offload_param": {"device": "cpu"},
    }
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = kit.workshop(tmp_path_factory.mktemp("ranks"))
    kit.write_pairs(folder)
    yield folder


@pytest.fixture(scope="module")
def alone(shop: Path) -> list[dict[str, Any]]:
    """Full SFT on one rank without DeepSpeed, which all others have to equal."""
    return _run(shop, "alone", ranks=1, stage=None, changes=METHODS["sft"])


@pytest.mark.parametrize(
    "stage",
    [None, pytest.param(0, marks=pytest.mark.long), 2, 3],
    ids=["plain", "zero0", "zero2", "zero3"],
)
def test_two_ranks_are_one(shop: Path, alone: list[dict[str, Any]], stage: int | None) -> None:
    two = _run(shop, f"two-{stage}", ranks=2, stage=stage, changes=METHODS["sft"])
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in two] == pytest.approx(
            [line[key] for line in alone], abs=1e-5, rel=1e-5
        )


def test_offload_is_the_same(shop: Path, alone: list[dict[str, Any]]) -> None:
    changes = {**METHODS["sft"], "deepspeed": OFFLOAD, "args": {"save_strategy": "no"}}
    lines = _run(shop, "offload", ranks=2, stage=None, changes=changes)
    assert [line["loss"] for line in lines] == pytest.approx(
        [line["loss"] for line in alone], abs=1e-5
    )


def test_stage_0_in_bfloat16_keeps_float32_weights(shop: Path) -> None:
    """A small rate moves them: in bfloat16 most would round back to where they were."""
    args = {"bf16": True, "max_steps": 2, "save_steps": 2, "learning_rate": 1e-5, "warmup_steps": 0}
    _run(shop, "low", ranks=2, stage=0, changes={**METHODS["sft"], "args": args})
    first, after = (
        load_file(shop / name / "model.safetensors") for name in ("tiny", "low/checkpoint-2")
    )
    moved = torch.cat([(first[name] != after[name]).flatten() for name in first if "proj" in name])
    assert moved.float().mean() > 0.9


@pytest.mark.parametrize(
    ("method", "stage"),
    [("sft", 0), ("dpo", 2), ("simpo", 3), ("dpo", None), ("sft-bf16", 2)],
    ids=["sft-zero0", "dpo-zero2", "simpo-zero3", "dpo-plain", "sft-bf16-zero2"],
)
def test_resume_is_exact(shop: Path, method: str, stage: int | None) -> None:
    args = {**METHODS[method].get("args", {}), "max_steps": 10, "save_steps": 5}
    changes = {**METHODS[method], "args": args}
    straight = _run(shop, f"{method}-{stage}", ranks=2, stage=stage, changes=changes)
    one, other = shop / f"{method}-{stage}", shop / f"{method}-{stage}-on"
    shutil.copytree(one / "checkpoint-5", other / "checkpoint-5")
    again = _run(
        shop, other.name, ranks=2, stage=stage, changes=changes, resume=f"{other.name}/checkpoint-5"
    )
    exact = ("step", "loss", "grad_norm", "learning_rate", "tokens")
    assert [[r[key] for key in exact] for r in again] == [
        [r[key] for key in exact] for r in straight[5:]
    ]
    _same_bytes(one / "checkpoint-10", other / "checkpoint-10")


def _same_bytes(one: Path, other: Path) -> None:
    own = {"trainer_state.json", kit.MARKER}
    for entry in kit.listed(one):
        path = str(entry["path"])
        if path not in own:
            assert (one / path).read_bytes() == (other / path).read_bytes(), path


@pytest.mark.parametrize(
    ("before", "after", "stage", "method"),
    [
        (2, 1, 2, "sft"),
        pytest.param(1, 2, 3, "simpo", marks=pytest.mark.long),
        (2, 1, None, "sft"),
    ],
    ids=["2-to-1-zero2", "1-to-2-zero3-simpo", "2-to-1-plain"],
)
def test_another_number_of_ranks(
    shop: Path, before: int, after: int, stage: int | None, method: str
) -> None:
    name = f"from-{before}-{stage}-{method}"
    straight = _run(shop, name, ranks=before, stage=stage, changes=METHODS[method])
    again = _run(
        shop,
        f"{name}-to-{after}",
        ranks=after,
        stage=stage,
        changes={**METHODS[method], "args": {"save_steps": 100}},
        resume=f"{name}/checkpoint-4",
    )
    assert [line["step"] for line in again] == list(range(5, 25))
    expected = [line["loss"] for line in straight[4:]]
    assert [line["loss"] for line in again] == pytest.approx(expected, abs=1e-4)
    log = (shop / f"{name}-to-{after}.log").read_text()
    assert f"batch: {after} ranks x 2 sequences x {4 // after} accumulation = 8" in log
    assert f"(saved by {before} ranks)" in log
    assert not (shop / f"{name}-to-{after}" / ".universal").exists()


def test_ranks_that_do_not_divide_the_batch(shop: Path) -> None:
    train = kit.settings(shop, "odd", full=True, args={"global_batch_size": 9})
    assert kit.run(shop, train, "odd") == 2
    log = (shop / "odd.log").read_text()
    assert log.count("9 sequences a step cannot be shared by 2 GPUs equally; use 1, 3 GPUs") == 1


def _run(
    shop: Path,
    out: str,
    *,
    ranks: int,
    stage: int | None,
    changes: dict[str, Any],
    resume: str | None = None,
) -> list[dict[str, Any]]:
    own = {**changes, "args": {**ARGS, **changes.get("args", {})}}
    train = kit.settings(shop, f"{out}-train", stage=stage, **own)
    words = ("--resume", resume) if resume else ()
    assert kit.run(shop, train, out, *words, how=ranks) == 0, (shop / f"{out}.log").read_text()
    return kit.metrics(shop, out)
