"""What is taken for a checkpoint below the checkpoint folder, and what is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote.agent import candidates
from remote.agent.candidates import find
from remote.agent.intact import is_intact
from remote.agent.layouts import NAMED, fetch_order, layouts_of
from remote.contract import ContractError

TREE = (
    "checkpoint-10/model.safetensors",
    "checkpoint-x/model.safetensors",
    "tmp-checkpoint-20/model.safetensors",
    "global_step_30/data.pt",
    "global_step40/mp_rank_00_model_states.pt",
    "mine/mp_rank_00_model_states.pt",
    "checkpoint_5/model.safetensors",
    "after-lunch/random_states_0.pkl",
    "step_50/COMPLETED",
    "step-60/.metadata",
    "async/__0_0.distcp",
    "epoch=1-step=70.ckpt",
    "sharded-step=80.ckpt/meta.pt",
    "model_0000090.pth",
    "model_final.pth",
    "model_000100.pt",
    "meta_000100.json",
    "optim_000100_rank0.pt",
    "runs/events.out",
    "_superseded/1/checkpoint-1/model.safetensors",
    ".hidden/mp_rank_00_model_states.pt",
    "final/mp_rank_00_model_states.pt",
    "latest",
    "config.json",
)
AUTO = {
    "checkpoint-10": ("huggingface", 10),
    "global_step_30": ("verl", 30),
    "global_step40": ("deepspeed", 40),
    "mine": ("deepspeed", None),
    "checkpoint_5": ("accelerate", 5),
    "after-lunch": ("accelerate", None),
    "step_50": ("auto", 50),
    "step-60": ("dcp", 60),
    "async": ("dcp", None),
    "epoch=1-step=70.ckpt": ("lightning", 70),
    "sharded-step=80.ckpt": ("lightning", 80),
    "model_0000090.pth": ("torchllms", 90),
    "model_final.pth": ("torchllms", None),
    "model_000100": ("nanochat", 100),
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "out/last.ckpt").symlink_to("epoch=1-step=70.ckpt")
    (tmp_path / "out/checkpoint-99").symlink_to("/etc")
    os.mkfifo(tmp_path / "out/model_0000091.pth")
    return tmp_path / "out"


def test_auto_knows_them_by_name_or_sign(out: Path) -> None:
    found = find(layouts_of("auto"), out)
    told = {name: (each.layout.name, each.step) for name, each in found.candidates.items()}
    assert told == AUTO
    assert found.refused == ("final",)
    assert found.newest == 100


@pytest.mark.parametrize("layout", [each.name for each in NAMED])
def test_a_layout_that_is_named_sees_its_own_alone(out: Path, layout: str) -> None:
    found = find(layouts_of(layout), out).candidates
    assert found and set(found) <= set(AUTO)
    mine = {name for name, (family, _) in AUTO.items() if family == layout}
    assert mine <= set(found)
    assert set(found) - mine <= {"step_50", "sharded-step=80.ckpt"}


def test_files_that_belong_together_are_one(out: Path) -> None:
    found = find(layouts_of("nanochat"), out).candidates["model_000100"]
    assert set(found.own()) == {"model_000100.pt", "meta_000100.json", "optim_000100_rank0.pt"}
    assert found.locate("meta_000100.json") == out / "meta_000100.json"


def test_there_is_nothing_where_there_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("absent", "file", "absent/deeper"):
        assert find(layouts_of("auto"), tmp_path / name).candidates == {}


@pytest.mark.parametrize(
    "name", ["a b.ckpt", "-x.ckpt", "é.ckpt", "x" * 201 + ".ckpt", "a\nb.ckpt"]
)
def test_a_name_that_cannot_travel_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "good.ckpt").touch()
    found = find(layouts_of("lightning"), tmp_path)
    assert list(found.candidates) == ["good.ckpt"] and found.refused == (name,)


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    layouts = layouts_of({"glob": "*/ckpt_*", "step": r"_(\d+)"})
    for run in ("one", "two"):
        (tmp_path / run / "ckpt_1").mkdir(parents=True)
    found = find(layouts, tmp_path)
    assert (list(found.candidates), found.refused) == (["ckpt_1"], ("ckpt_1",))


def test_too_many_entries_are_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MAX_FILES", 10)
    for number in range(12):
        (tmp_path / str(number)).touch()
    with pytest.raises(ContractError, match="more than 10 entries"):
        find(layouts_of("auto"), tmp_path)


@pytest.mark.parametrize(
    "paths",
    [
        ["config.json", "trainer_state.json", "model.safetensors", "rng_state.pth", "optimizer.pt"],
        ["latest", "g/mp_rank_00_model_states.pt", "g/zero_pp_rank_0_mp_rank_00_optim_states.pt"],
        ["actor/huggingface/config.json", "actor/model_world_size_2_rank_0.pt", "data.pt",
         "actor/optim_world_size_2_rank_0.pt"],
        ["meta_000001.json", "model_000001.pt", "optim_000001_rank0.pt"],
        ["model.safetensors", "random_states_0.pkl", "optimizer.bin"],
        ["pytorch_model_fsdp_0/__0_0.distcp", "rng_state_0.pth", "optimizer_0/__0_0.distcp"],
    ],
    ids=["huggingface", "deepspeed", "verl", "nanochat", "accelerate", "fsdp"],
)  # fmt: skip
def test_what_an_evaluation_and_a_resume_begin_with_is_first(paths: list[str]) -> None:
    assert fetch_order(reversed(paths)) == paths


@pytest.mark.parametrize(
    ("name", "data", "intact"),
    [
        pytest.param("a.pt", b"", False, id="empty"),
        pytest.param("a.pt", b"\x80\x02legacy", True, id="a pickle tells no end"),
        pytest.param("a.safetensors", b"\xff" * 8, False, id="header too long"),
        pytest.param("a.safetensors", b"\x02" + b"\0" * 7 + b"{}", True, id="no tensor"),
        pytest.param("a.pt", b"PK\x03\x04" + b"x" * 70000, False, id="no end"),
        pytest.param("a.pt", b"PK\x03\x04PK\x05\x06" + b"\1" * 18, False, id="end points nowhere"),
    ],
)
def test_containers(tmp_path: Path, name: str, data: bytes, intact: bool) -> None:
    (tmp_path / name).write_bytes(data)
    assert is_intact(tmp_path / name) is intact
