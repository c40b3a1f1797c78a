"""What ZeRO 0 and 3 leave on disk, and what the launchers do with a stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

import trainer_kit as kit

pytestmark = pytest.mark.trainer
COMMON = {
    *("adapter_model.safetensors", "adapter_config.json", "tokenizer.json"),
    *("latest", "scheduler.pt", "trainer_state.json", "rng_state_0.pth", "rng_state_1.pth"),
}
ENGINE = {
    0: {"mp_rank_00_model_states.pt"},
    3: {
        *(f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in (0, 1)),
        *(f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)),
    },
}
HOW: dict[int, kit.How] = {0: 2, 3: kit.TORCHRUN}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield kit.workshop(tmp_path_factory.mktemp("layouts"))


@pytest.mark.parametrize("stage", [0, 3], ids=["zero0", "zero3-torchrun"])
def test_layout_and_marker(shop: Path, stage: int) -> None:
    out = f"zero{stage}"
    args = {"max_steps": 6, "save_steps": 2, "save_total_limit": 2}
    train = kit.settings(shop, out, stage=stage, lora=True, args=args)
    assert kit.run(shop, train, out, how=HOW[stage]) == 0, (shop / f"{out}.log").read_text()

    # The limit is kept by age of the folder: a marker written into one must not make it younger.
    assert sorted(path.name for path in (shop / out).glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]
    checkpoint = shop / out / "checkpoint-6"
    engine = {f"global_step6/{name}" for name in ENGINE[stage]}
    names = {str(entry["path"]) for entry in kit.listed(checkpoint)}
    assert names >= COMMON | engine
    assert {name for name in names if name.startswith("global_step")} == engine
    said = kit.marker(checkpoint)
    assert (said["name"], said["step"], said["world_size"]) == ("checkpoint-6", 6, 2)
    assert said["files"] == kit.listed(checkpoint)

    final = kit.marker(shop / out)
    assert (final["name"], final["step"]) == ("final", 6)
    assert final["files"] == kit.listed(shop / out, subfolders=False)
    assert {"adapter_model.safetensors", "tokenizer.json", "trainer_state.json"} <= {
        entry["path"] for entry in final["files"]
    }
    log = (shop / f"{out}.log").read_text()
    assert "batch: 2 ranks x 2 sequences x 1 accumulation = 4 sequences a step" in log


def test_sigterm_saves_where_it_is_and_says_so(shop: Path) -> None:
    train = kit.settings(
        shop, "stop", stage=2, lora=True, args={"max_steps": 10_000, "save_steps": 10_000}
    )
    before = _littered(shop)
    with kit.started(shop, train, "stop", how=kit.OWN) as process:
        kit.wait_for(shop / "stop.jsonl", process, text='"step": 3,')
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=120) == 143
    last = kit.metrics(shop, "stop")[-1]["step"]
    (checkpoint,) = (shop / "stop").glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{last}"
    assert kit.marker(checkpoint)["files"] == kit.listed(checkpoint)
    assert not (shop / "stop" / kit.MARKER).exists()
    assert f"stopped at step {last}" in (shop / "stop.log").read_text()
    assert _littered(shop) == before


@pytest.mark.long
def test_a_finished_run_leaves_nothing_outside_either(shop: Path) -> None:
    train = kit.settings(shop, "tidy", stage=2, lora=True, args={"max_steps": 1})
    before = _littered(shop)
    assert kit.run(shop, train, "tidy", how=kit.OWN) == 0
    assert _littered(shop) == before


def _littered(shop: Path) -> list[Path]:
    """What lies in the home folder, where nothing may be, and in the temporary one."""
    assert list((shop / "home").rglob("*")) == []
    return sorted((shop / "tmp").rglob("*"))
