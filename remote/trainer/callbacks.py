"""What gpujob adds to TRL's loop: metrics to read, complete checkpoints, a stop that saves."""

from __future__ import annotations

import json
import signal
import time
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from remote.contract import PROTOCOL
from remote.trainer.marker import PIN_TIMEOUT_S, Pins, listed, mark, unmark_after
from remote.trainer.witness import witness

LOGGED = ("loss", "grad_norm", "learning_rate", "eval_loss")


def barrier() -> None:
    """Wait for every rank; nothing to wait for in a run of one."""
    PartialState().wait_for_everyone()


class Metrics(TrainerCallback):
    """Rank 0 appends one JSON line a logged step (`docs/formats.md` §8).

    Tokens a second are those of all ranks, over the time spent in steps (not in saves).
    A NaN is written as Python's json writes it: a reader must see it, not a gap.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._began = 0.0
        self._spent_s = 0.0
        self._tokens = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._path is not None and state.is_world_process_zero:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _end_torn_line(self._path)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._spent_s += time.monotonic() - self._began

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self._path is None or not state.is_world_process_zero:
            return
        record = {key: float(logs[key]) for key in LOGGED if key in logs}
        if not record:
            return
        if "loss" in record:
            record.update(self._speed(float(logs.get("num_tokens", 0.0))))
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"v": PROTOCOL, "step": state.global_step, "at": at, "max_steps": state.max_steps}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, **record}) + "\n")

    def _speed(self, tokens: float) -> dict[str, float]:
        new, self._tokens = tokens - self._tokens, tokens
        spent_s, self._spent_s = self._spent_s, 0.0
        return {"tokens_per_s": round(new / spent_s, 1)} if new > 0 and spent_s > 0 else {}


class Completeness(TrainerCallback):
    """Marks a checkpoint complete after every rank's last write, then waits for its pin.

    The marker goes into the folder before the next one is made, so the order by mtime that
    `save_total_limit` deletes in stays the order of the steps.
    """

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._warned = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            unmark_after(Path(args.output_dir), state.global_step)
        barrier()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        name = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self.complete(Path(args.output_dir) / name, name, state=state)

    def complete(self, folder: Path, name: str, *, state: Any, subfolders: bool = True) -> None:
        """Called by all ranks; returns on all when rank 0 has marked and the pin is there."""
        barrier()
        if state.is_world_process_zero:
            nonce = mark(
                folder,
                name,
                step=state.global_step,
                world_size=PartialState().num_processes,
                subfolders=subfolders,
            )
            witness(folder, name, listed(folder))
            print(f"checkpoint {name} is complete at step {state.global_step}", flush=True)
            if not self._pins.wait(name, nonce):
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


class Stop(TrainerCallback):
    """SIGTERM means: at the next step, when all ranks know, save and end.

    The ranks agree, because a signal reaches them at different moments, and a rank that stops
    alone leaves the others waiting in a collective until it times out.
    """

    def __init__(self) -> None:
        self._asked = False
        self._told = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        signal.signal(signal.SIGTERM, self._ask)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._agreed(args.device):
            return
        if state.is_world_process_zero and not self._told:
            print(f"stop asked: saving at step {state.global_step}", flush=True)
        self._told = True
        control.should_save = True
        control.should_training_stop = True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _agreed(self, device: Any) -> bool:
        if not dist.is_initialized():
            return self._asked
        asked = torch.tensor([int(self._asked)], device=device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked.item())


def _end_torn_line(path: Path) -> None:
    """A killed process may have left half a line; ours must not become its other half."""
    with path.open("ab+") as file:
        if file.tell() == 0:
            return
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")
