"""Adapters over a base in four bits, which bitsandbytes can do on a CPU too. Run where it is
installed: with it every trainer that the other tests start takes a second longer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

from safetensors.torch import load_file
from trainer_place import Place

from remote.trainer.tiny_model import build

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.filterwarnings("ignore::UserWarning:bitsandbytes"),
    pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU"),
]
ADAPTERS = {"rank": 4, "alpha": 8}
SAVED = {"save_strategy": "steps", "save_steps": 4}


@pytest.fixture(scope="module")
def wide(trainer_place: Place) -> str:
    """Wider than a block of 64 weights that share a scale, which is the least for a CPU."""
    folder = trainer_place.folder / "wide"
    build(folder, [trainer_place.folder / "text.txt"], hidden=128, vocabulary=300, layers=2)
    return str(folder)


@pytest.fixture(autouse=True)
def plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On some CPUs the first evaluation packs the base for a faster, coarser kernel, and the next
    save unpacks it: what is not so on a GPU."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


def test_the_base_is_quantised_and_the_adapters_learn(trainer_place: Place, wide: str) -> None:
    args = {"learning_rate": 1e-2, "max_steps": 20}
    for name in ("lora", "qlora"):
        assert trainer_place.run(name, model=wide, args=args, **{name: ADAPTERS}) == 0
    exact, rounded = trainer_place.losses("lora"), trainer_place.losses("qlora")
    assert rounded != exact, "nothing was quantised"
    assert rounded[0] == pytest.approx(exact[0], rel=0.1)
    assert sum(rounded[-5:]) < sum(rounded[:5]) - 0.5
    saved = load_file(trainer_place.folder / "qlora" / "adapter_model.safetensors")
    assert all("lora_" in name for name in saved)


def test_a_resume_is_exact(trainer_place: Place, wide: str, tmp_path: Path) -> None:
    asked = {"model": wide, "qlora": ADAPTERS, "args": SAVED}
    out = trainer_place.folder / "straight"
    assert trainer_place.run("straight", **asked) == 0
    weights = (out / "adapter_model.safetensors").read_bytes()
    shutil.copytree(out / "checkpoint-4", trainer_place.folder / "kept-qlora")
    shutil.rmtree(out)
    assert trainer_place.run("straight", resume="kept-qlora", **asked) == 0
    assert (out / "adapter_model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("optim", ["adamw_bnb_8bit", "paged_adamw_8bit"])
def test_an_optimizer_in_eight_bits(trainer_place: Place, wide: str, optim: str) -> None:
    args = {"optim": optim, "learning_rate": 1e-2, "max_steps": 20}
    assert trainer_place.run(optim, model=wide, lora=ADAPTERS, args=args) == 0
    losses = trainer_place.losses(optim)
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.5
