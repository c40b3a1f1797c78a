"""Writes `checkpoint-N/` as a Hugging Face trainer does, but whole or not at all.

Every rank writes into a folder of another name; the state, which says that all is there, is
written after a barrier; then the folder gets its name, its marker, and waits to be pinned.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remote.trainer import saved
from remote.trainer.learner import Learner
from remote.trainer.marker import PIN_TIMEOUT_S, Pins, listed, mark, unmark_after
from remote.trainer.ranks import barrier, rank, world
from remote.trainer.witness import witness

STATE = "trainer_state.json"
SCHEDULER = "scheduler.pt"
_NAME = re.compile(r"^checkpoint-(\d+)$")


@dataclass
class Checkpoints:
    """The checkpoints of one output folder; `keep` of them stay, None for all."""

    output: Path
    pins: Pins
    keep: int | None = None
    _warned: bool = False

    def begin(self, step: int) -> None:
        """Forget the markers of what will be written again, and what was never finished."""
        if rank() == 0:
            self.output.mkdir(parents=True, exist_ok=True)
            unmark_after(self.output, step)
            for folder in self.output.glob(".writing-*"):
                shutil.rmtree(folder)
        barrier()

    def save(self, step: int, learner: Learner, state: dict[str, Any]) -> None:
        """Write `checkpoint-<step>`; return on all ranks when it is marked, and pinned if it is
        watched."""
        name = f"checkpoint-{step}"
        writing = self.output / f".writing-{name}"
        if rank() == 0:
            writing.mkdir()
        barrier()
        learner.save(writing, step)
        _save_random(writing)
        if rank() == 0:
            torch.save({"step": step, "rate": state["gpujob"]["rate"]}, writing / SCHEDULER)
        barrier()
        if rank() == 0:
            write_state(writing, state)
            _replace(self.output / name, writing)
        self._complete(self.output / name, name, step, subfolders=True)
        if rank() == 0:
            self._rotate(step)
        barrier()

    def save_final(self, step: int, learner: Learner, state: dict[str, Any]) -> None:
        """Weights, tokenizer and state at the root of the output folder, then their marker."""
        learner.save_final(self.output)
        if rank() == 0:
            write_state(self.output, state)
        self._complete(self.output, "final", step, subfolders=False)

    def _complete(self, folder: Path, name: str, step: int, *, subfolders: bool) -> None:
        barrier()
        if rank() == 0:
            nonce = mark(folder, name, step=step, world_size=world(), subfolders=subfolders)
            witness(folder, name, listed(folder))
            print(f"checkpoint {name} is complete at step {step}", flush=True)
            if not self.pins.wait(name, nonce):
                self._warn(name)
        barrier()

    def _warn(self, name: str) -> None:
        if not self._warned:
            print(
                f"warning: {name} was not pinned within {PIN_TIMEOUT_S:.0f} s; going on. It may"
                " be deleted before it is copied: look at the agent's log.",
                flush=True,
            )
        self._warned = True

    def _rotate(self, step: int) -> None:
        """Delete the oldest by step, beyond `keep`. What lies after `step` was left by a run that
        had come further than the checkpoint this one began with: it is not counted."""
        if self.keep is None:
            return
        found = sorted(
            (int(match[1]), path)
            for path in self.output.iterdir()
            if (match := _NAME.match(path.name)) and int(match[1]) <= step
        )
        for _, path in found[: -self.keep]:
            shutil.rmtree(path, ignore_errors=True)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """`trainer_state.json`, durable and whole."""
    temporary = folder / f".{STATE}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(state, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STATE)


def random_file(folder: Path, number: int, ranks: int) -> Path:
    return folder / ("rng_state.pth" if ranks == 1 else f"rng_state_{number}.pth")


def restore_random(folder: Path) -> None:
    """Give this rank the random state it had. The same number of ranks only. Raises TrainError."""
    saved.read(random_file(folder, rank(), world()), _set_random)


def seed_rank(seed: int, step: int) -> None:
    """Random numbers of this rank's own: at the start, and after the number of ranks changed."""
    mixed = np.random.SeedSequence([seed, step, rank()]).generate_state(1)[0]
    random.seed(int(mixed))
    np.random.seed(int(mixed))
    torch.manual_seed(int(mixed))


def _set_random(state: Mapping[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.random.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.random.set_rng_state(state["cuda"])


def _save_random(folder: Path) -> None:
    name, keys, *rest = np.random.get_state(legacy=True)
    # Tensors and plain values only: what is read back is data, never code.
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.random.get_rng_state()
    torch.save(state, random_file(folder, rank(), world()))


def _replace(target: Path, whole: Path) -> None:
    """Give `whole` its name. An older one of the name goes first: its bytes may be pinned."""
    if target.exists():
        gone = target.with_name(f".writing-old-{target.name}")
        target.replace(gone)
        shutil.rmtree(gone)
    whole.replace(target)
