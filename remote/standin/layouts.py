"""One checkpoint of each family, as small as a whole one can be. docs/layouts.md says what counts.

The order within a save is not the real trainers' order; the files are."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Mapping


@dataclass(frozen=True)
class Save:
    """`history` is what a trainer writes into its state about the steps so far."""

    root: Path
    step: int
    world: int
    most: int
    history: tuple[Mapping[str, Any], ...] = ()


def huggingface(save: Save) -> Path:
    folder = save.root / f"checkpoint-{save.step}"
    _weights(folder)
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin"):
        _write(folder / name, torch_file())
    for rank in range(save.world):
        name = "rng_state.pth" if save.world == 1 else f"rng_state_{rank}.pth"
        _write(folder / name, torch_file())
    state = {"global_step": save.step, "max_steps": save.most, "log_history": list(save.history)}
    _write(folder / "trainer_state.json", json.dumps(state).encode())
    return folder


def accelerate(save: Save) -> Path:
    return _accelerate(save, save.root / f"checkpoint_{save.step}")


def open_instruct(save: Save) -> Path:
    folder = _accelerate(save, save.root / f"step_{save.step}")
    _write(folder / "COMPLETED", b"COMPLETED")
    return folder


def verl(save: Save) -> Path:
    folder = save.root / f"global_step_{save.step}"
    for role in ("actor", "critic"):
        for rank in range(save.world):
            for kind in ("model", "optim", "extra_state"):
                name = f"{kind}_world_size_{save.world}_rank_{rank}.pt"
                _write(folder / role / name, torch_file())
    _write(folder / "data.pt", torch_file())
    _write(save.root / "latest_checkpointed_iteration.txt", str(save.step).encode())
    return folder


def deepspeed(save: Save) -> Path:
    folder = save.root / f"global_step{save.step}"
    state: Dict[str, Any] = {"module": {}, "optimizer": None, "global_steps": save.step}
    model = torch_file({**state, "dp_world_size": save.world})
    _write(folder / "mp_rank_00_model_states.pt", model)
    for rank in range(save.world):
        _write(folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt", torch_file())
    _write(save.root / "latest", folder.name.encode())
    return folder


def torchllms(save: Save) -> Path:
    _write(save.root / "train_args.json", b"{}")
    return _write(save.root / f"model_{save.step:07d}.pth", torch_file())


def nanochat(save: Save) -> Path:
    name = f"{save.step:06d}"
    _write(save.root / f"meta_{name}.json", json.dumps({"step": save.step}).encode())
    for rank in range(save.world):
        _write(save.root / f"optim_{name}_rank{rank}.pt", torch_file())
    return _write(save.root / f"model_{name}.pt", torch_file())


def lightning(save: Save) -> Path:
    state = {"epoch": 0, "global_step": save.step}
    return _write(save.root / f"epoch=0-step={save.step}.ckpt", torch_file(state))


def dcp(save: Save) -> Path:
    folder = save.root / f"step-{save.step}"
    shards = [f"__{rank}_0.distcp" for rank in range(save.world)]
    for shard in shards:
        _write(folder / shard, torch_file())
    _write(folder / ".metadata", pickle.dumps({"storage": shards}, protocol=2))
    return folder


def torchtune(save: Save) -> Path:
    folder = save.root / f"step_{save.step}"
    _weights(folder)
    _write(save.root / "recipe_state" / "recipe_state.pt", torch_file({"step": save.step}))
    return folder


def custom(rule: Mapping[str, Any]) -> Callable[[Save], Path]:
    """The layout that a job file describes itself: every file that it asks for."""

    def write(save: Save) -> Path:
        folder = save.root / str(rule["glob"]).replace("*", str(save.step), 1).replace("*", "0")
        for name in (*(rule.get("required") or ()), *(rule.get("markers") or ("state.json",))):
            path = folder / str(name).replace("*", "0")
            _write(path, _content(path))
        return folder

    return write


WRITERS: dict[str, Callable[[Save], Path]] = {
    "huggingface": huggingface,
    "accelerate": accelerate,
    "open-instruct": open_instruct,
    "verl": verl,
    "deepspeed": deepspeed,
    "torchllms": torchllms,
    "nanochat": nanochat,
    "lightning": lightning,
    "dcp": dcp,
    "torchtune": torchtune,
}
ENDS_AT_ROOT = ("huggingface", "open-instruct", "accelerate", "torchtune")


def final(layout: str, save: Save) -> None:
    """What is left at the end beside the last checkpoint."""
    if layout in ENDS_AT_ROOT:
        _weights(save.root)
        state = {"global_step": save.step, "max_steps": save.most}
        _write(save.root / "trainer_state.json", json.dumps(state).encode())
    if layout == "torchllms":
        _write(save.root / "model_final.pth", torch_file())


def forget(path: Path) -> None:
    """What retention does."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def torch_file(record: object = None) -> bytes:
    """What torch.save writes: a zip with a pickle and a tensor's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(record, protocol=2))
        archive.writestr("archive/data/0", b"\x01" * 64)
    return buffer.getvalue()


def _accelerate(save: Save, folder: Path) -> Path:
    _write(folder / "model.safetensors", _safetensors())
    for name in ("optimizer.bin", "scheduler.bin"):
        _write(folder / name, torch_file())
    for rank in range(save.world):
        _write(folder / f"random_states_{rank}.pkl", torch_file())
    return folder


def _weights(folder: Path) -> None:
    _write(folder / "config.json", b"{}")
    _write(folder / "model.safetensors", _safetensors())


def _content(path: Path) -> bytes:
    if path.suffix == ".safetensors":
        return _safetensors()
    if path.suffix == ".json":
        return b"{}"
    return torch_file() if path.suffix in (".pt", ".pth", ".bin", ".ckpt") else b"x" * 64


def _safetensors() -> bytes:
    header = {"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\x01" * 64


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
