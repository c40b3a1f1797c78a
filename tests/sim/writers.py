"""`python -m sim.writers LIBRARY …`: one process a rank that saves again and again with a real
library, keeps one checkpoint, and records what it wrote (writers_pace.Writer).

Started alone or by torchrun, in the folder where `out/` shall appear."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sim.writers_pace import Pace, Writer
from sim.writers_slow import (
    slow_fsspec,
    slow_rename,
    slow_safetensors,
    slow_torch,
)

OUT = Path("out")
Start = Callable[[Callable[[], None]], Writer]


def main() -> None:
    parser = argparse.ArgumentParser(prog="sim.writers", description=__doc__)
    parser.add_argument("library", help="one of LIBRARIES, or of kit.writers_of_layouts")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--saves", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--late-every", type=int, default=10)
    parser.add_argument("--late-s", type=float, default=6.5)
    options = parser.parse_args()
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    pace = Pace(options.seed, ranks, options.late_every, options.late_s)

    def start(barrier: Callable[[], None], *, of: int = rank) -> Writer:
        return Writer(OUT, options.record, pace, rank=of, barrier=barrier)

    if options.library in LIBRARIES:
        LIBRARIES[options.library](start, options.saves)
    else:
        from sim.writers_ordered import play

        play(lambda of, barrier: start(barrier, of=of), options.library, options.saves, OUT)


def trainer(start: Start, saves: int, *, stage: int | None = None) -> None:
    """The Hugging Face Trainer with `save_total_limit=1`."""
    from sim.writers_trainer import train

    train(start, saves, OUT, stage)


def deepspeed_engine(start: Start, saves: int) -> None:
    """`engine.save_checkpoint`, which deletes nothing by itself."""
    import deepspeed
    import torch

    from remote.trainer.setup import start_deepspeed_on_cpu

    start_deepspeed_on_cpu()
    writer = start(torch.distributed.barrier)
    slow_torch(writer)
    model = _model(torch)
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": {"stage": 2},
    }
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=list(model.parameters()), config=settings
    )
    for step in range(1, saves + 1):
        engine.backward(engine(torch.randn(1, 64)).sum())
        engine.step()
        writer.begin(step)
        engine.save_checkpoint(str(OUT), tag=f"global_step{step}")
        writer.end(step, OUT / f"global_step{step}")
        _retire(OUT / f"global_step{step - 1}")


def accelerate_state(start: Start, saves: int, *, registers: bool = False) -> None:
    """`save_state` with names of its own choice and `total_limit=1`: the old one is deleted
    before the new one is written. What a program registers comes last, from rank 0 alone."""
    import accelerate.utils.other
    import torch
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    project = ProjectConfiguration(project_dir=".", automatic_checkpoint_naming=True, total_limit=1)
    accelerator = Accelerator(cpu=True, project_config=project)
    writer = start(accelerator.wait_for_everyone)
    writer.root = Path("checkpoints").absolute()
    slow_torch(writer)
    slow_safetensors(writer, accelerate.utils.other)
    model = _model(torch)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    if registers:
        accelerator.register_for_checkpointing(torch.optim.SGD(_model(torch).parameters(), lr=1))
    for step in range(1, saves + 1):
        accelerator.backward(model(torch.randn(1, 64)).sum())
        optimizer.step()
        schedule.step()
        writer.begin(step)
        folder = writer.root / f"checkpoint_{accelerator.save_iteration}"
        accelerator.save_state()
        writer.end(step, folder)


def torch_dcp(start: Start, saves: int) -> None:
    """`torch.distributed.checkpoint` with torchtitan's folders; each rank owns a shard of every
    tensor."""
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    writer = start(torch.distributed.barrier)
    slow_torch(writer)
    slow_rename(writer)
    names = [f"layers.{number}" for number in range(4)]
    for step in range(1, saves + 1):
        tensors = {name: distribute_tensor(torch.randn(64, 64), mesh, [Shard(0)]) for name in names}
        writer.begin(step)
        dcp.save({"model": tensors, "step": step}, checkpoint_id=str(OUT / f"step-{step}"))
        writer.end(step, OUT / f"step-{step}")
        _retire(OUT / f"step-{step - 1}")
    torch.distributed.destroy_process_group()


def lightning_fit(start: Start, saves: int) -> None:
    """ModelCheckpoint with `save_top_k=1`: the newest is the best."""
    from sim.writers_lightning import fit

    writer = start(lambda: None)
    slow_fsspec(writer)
    fit(writer, saves, OUT)


def _model(torch) -> object:  # type: ignore[no-untyped-def]
    layers = [torch.nn.Linear(64, 64) for _ in range(3)]
    return torch.nn.Sequential(*layers)


def _retire(old: Path) -> None:
    if os.environ.get("RANK", "0") == "0" and old.exists():
        shutil.rmtree(old)


LIBRARIES: dict[str, Callable[[Start, int], None]] = {
    "trainer": trainer,
    "trainer-zero2": partial(trainer, stage=2),
    "trainer-zero3": partial(trainer, stage=3),
    "deepspeed": deepspeed_engine,
    "accelerate": accelerate_state,
    "accelerate-registered": partial(accelerate_state, registers=True),
    "dcp": torch_dcp,
    "lightning": lightning_fit,
}

if __name__ == "__main__":
    main()
