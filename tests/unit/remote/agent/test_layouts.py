"""When a checkpoint of the Hugging Face Trainer is complete, and what an exact marker may say."""

from __future__ import annotations

import io
import json
import pickle
from typing import Any, BinaryIO

import pytest
from kit.writers_of_layouts import torch_file

from remote.agent import layouts
from remote.agent.layouts import Context, Tree
from remote.agent.layouts.huggingface import huggingface
from remote.agent.layouts.tree import pickled_none, pickled_number
from remote.contract import ContractError

STEP = 10
STATE = json.dumps({"global_step": STEP, "max_steps": 40}).encode()
INDEX = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()
TAG = f"global_step{STEP}"
PLAIN = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
LORA = ("adapter_model.safetensors", "adapter_config.json", *PLAIN[1:])
TWO_RANKS = (
    *(name for name in PLAIN if name != "rng_state.pth"),
    *("rng_state_0.pth", "rng_state_1.pth"),
)
SHARDED = ("model.safetensors.index.json", "m-1.safetensors", "m-2.safetensors", *PLAIN[1:])
COMMON = (
    "adapter_model.bin",
    "adapter_config.json",
    "latest",
    "rng_state_0.pth",
    "rng_state_1.pth",
)
OPTIM = tuple(f"{TAG}/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1))
BF16 = tuple(f"{TAG}/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1))
MODEL = tuple(f"{TAG}/zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in (0, 1))
WHOLE = f"{TAG}/mp_rank_00_model_states.pt"
ZERO0 = (*COMMON, WHOLE, "trainer_state.json")
ZERO0_BF16 = (*ZERO0, *BF16)
ZERO2 = (*ZERO0, *OPTIM)
ZERO3 = (*COMMON, *MODEL, *OPTIM, "trainer_state.json")
ZERO3_NOT_GATHERED = tuple(name for name in ZERO3 if not name.startswith("adapter"))


def tree(files: dict[str, bytes]) -> Tree:
    def open_file(path: str) -> BinaryIO:
        return io.BytesIO(files[path])

    return Tree({path: len(data) for path, data in files.items()}, open_file)


def judge(names: tuple[str, ...], *, world_size: int = 2, at_least: int = 1, **texts: bytes) -> Any:
    content = {
        "trainer_state.json": STATE,
        "latest": TAG.encode() + b"\n",
        "model.safetensors.index.json": INDEX,
        **texts,
    }
    files = {name: content.get(name, b"x" * 100) for name in names}
    context = Context(world_size=world_size, at_least=at_least)
    return huggingface(f"checkpoint-{STEP}", tree(files), context)


COMPLETE = {
    "one process": PLAIN,
    "lora": LORA,
    "two ranks": TWO_RANKS,
    "sharded weights": SHARDED,
    "zero 0": ZERO0,
    "zero 0, bf16": ZERO0_BF16,
    "zero 2": ZERO2,
    "zero 3": ZERO3,
    "zero 3, weights in the shards alone": ZERO3_NOT_GATHERED,
}


@pytest.mark.parametrize("names", COMPLETE.values(), ids=COMPLETE)
def test_complete(names: tuple[str, ...]) -> None:
    verdict = judge(names)
    assert verdict.missing is None
    assert (verdict.step, verdict.max_steps) == (STEP, 40)
    assert verdict.world_size == (1 if "rng_state.pth" in names else 2)


@pytest.mark.parametrize(
    ("layout", "piece"), [(layout, piece) for layout, names in COMPLETE.items() for piece in names]
)
def test_each_piece_is_needed(layout: str, piece: str) -> None:
    names = tuple(name for name in COMPLETE[layout] if name != piece)
    assert judge(names).missing is not None


@pytest.mark.parametrize(
    ("names", "texts", "missing"),
    [
        pytest.param(PLAIN, {"trainer_state.json": b'{"global'}, "whole", id="torn state"),
        pytest.param(PLAIN, {"trainer_state.json": b"[]"}, "whole", id="state is no object"),
        pytest.param(
            PLAIN, {"trainer_state.json": b'{"global_step": 9}'}, "of step 10", id="other step"
        ),
        pytest.param((*PLAIN, layouts.SENTINEL), {}, "end of the save", id="sentinel"),
        pytest.param(ZERO2, {"latest": b"global_step9"}, "global_step9/", id="latest elsewhere"),
        pytest.param(ZERO2, {"latest": b""}, "latest", id="latest empty"),
        pytest.param(
            SHARDED, {"model.safetensors.index.json": b"{"}, "shards", id="index unreadable"
        ),
    ],
)
def test_contradictions(names: tuple[str, ...], texts: dict[str, bytes], missing: str) -> None:
    assert missing in judge(names, **texts).missing


def test_more_ranks_than_shards() -> None:
    for names in (TWO_RANKS, ZERO0, ZERO2, ZERO3):
        assert judge(names, world_size=3).missing is not None


def test_fewer_shards_than_an_earlier_checkpoint_had() -> None:
    assert judge(PLAIN, world_size=1, at_least=2).missing == "rng_state_0.pth"
    assert judge(ZERO2, world_size=1, at_least=3).missing is not None


def test_shards_with_a_gap() -> None:
    names = (*ZERO0, OPTIM[0], OPTIM[1].replace("rank_1", "rank_2"))
    assert "optim_states" in judge(names).missing


def test_without_optimizer_shards_zero_0_and_too_early_look_alike() -> None:
    assert judge(ZERO0).doubtful
    assert not judge(ZERO2).doubtful


@pytest.mark.parametrize(
    ("names", "complete"),
    [
        pytest.param(("model.safetensors", "config.json"), True, id="model"),
        pytest.param(("adapter_model.bin", "adapter_config.json"), True, id="adapter"),
        pytest.param(("model.safetensors",), False, id="no config"),
        pytest.param(("config.json", "trainer_state.json"), False, id="no weights"),
        pytest.param(
            ("model.safetensors.index.json", "m-1.safetensors", "config.json"), False, id="shard"
        ),
    ],
)
def test_final(names: tuple[str, ...], complete: bool) -> None:
    texts = {"trainer_state.json": STATE, "model.safetensors.index.json": INDEX}
    files = {name: texts.get(name, b"x") for name in (*names, "trainer_state.json")}
    verdict = layouts.final(tree(files))
    assert (verdict.missing is None) is complete
    assert (verdict.step, verdict.max_steps) == (10, 40)


def test_the_engine_s_own_file_tells_how_many_shards_there_will_be() -> None:
    """ZeRO-0 and ZeRO-2 before its shards look alike by names: the content does not."""
    state = {"module": {}, "optimizer": None, "global_steps": 10, "dp_world_size": 3}
    told = {WHOLE: torch_file(state)}
    assert "optim_states" in judge(ZERO0, world_size=1, **told).missing
    ranks = ("rng_state_2.pth",)
    assert "2 of 3" in judge((*ZERO2, *ranks), world_size=1, **told).missing
    third = OPTIM[1].replace("rank_1", "rank_2")
    assert judge((*ZERO2, *ranks, third), world_size=1, **told).missing is None
    alone = {WHOLE: torch_file({**state, "optimizer": {"state": {}}})}
    assert judge(ZERO0, world_size=1, **alone).missing is None
    assert not judge(ZERO0, world_size=1, **alone).doubtful


@pytest.mark.parametrize("value", [0, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**40])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_number_is_read_from_a_pickle_without_loading_it(value: int, protocol: int) -> None:
    data = pickle.dumps({"epoch": 1, "global_step": value, "optimizer": None}, protocol)
    assert pickled_number(data, "global_step") == value
    assert pickled_number(data, "step") is None
    assert pickled_none(data, "optimizer") and not pickled_none(data, "epoch")


MARKER = {"v": 1, "name": "checkpoint-10", "step": 10, "world_size": 2, "nonce": "ab12"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"nonce": "../../x"}, id="nonce is a path"),
        pytest.param({"v": 2}, id="other version"),
        pytest.param({"files": []}, id="lists nothing"),
        pytest.param({"files": [{"path": "../x", "size": 1}]}, id="leaves its folder"),
        pytest.param({"files": 3}, id="not a list"),
    ],
)
def test_a_marker_is_hostile_input(change: dict[str, Any]) -> None:
    whole = {**MARKER, "files": [{"path": "a", "size": 1}]}
    assert layouts.read_marker(json.dumps(whole).encode()).files == {"a": 1}
    with pytest.raises(ContractError):
        layouts.read_marker(json.dumps({**whole, **change}).encode())
