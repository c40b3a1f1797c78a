"""Where a step's record goes: a JSON line for the agent, one for a person, TensorBoard and W&B if
asked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from remote.contract import PROTOCOL
from remote.trainer.problems import TrainError

CONSOLE = ("loss", "grad_norm", "learning_rate", "tokens_per_s", "mfu", "eval_loss")


class Sink(Protocol):
    """Takes a record a logged step."""

    def write(self, step: int, record: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl` (docs/formats.md §8). A NaN is written as Python's json writes it: a
    reader must see it, not a gap."""

    def __init__(self, path: Path, max_steps: int) -> None:
        self._path = path
        self._fixed = {"v": PROTOCOL, "max_steps": max_steps, **_attempt()}
        path.parent.mkdir(parents=True, exist_ok=True)
        _end_torn_line(path)

    def write(self, step: int, record: Mapping[str, float]) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {**self._fixed, "step": step, "at": at, **record}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Each line is closed as it is written."""


def _attempt() -> dict[str, int]:
    """Whose line it is: attempts share the file."""
    number = os.environ.get("GPUJOB_ATTEMPT", "")
    return {"attempt": int(number)} if number.isdecimal() else {}


class Console:
    """`step 10/500  loss 1.234  grad_norm 0.85  learning_rate 1e-05 …`"""

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps

    def write(self, step: int, record: Mapping[str, float]) -> None:
        shown = [name for name in CONSOLE if name in record]
        rest = [name for name in record if name.startswith(("rewards/", "gad/"))]
        words = [f"{name} {record[name]:.4g}" for name in (*shown, *rest)]
        print(f"step {step}/{self._max_steps}  {'  '.join(words)}", flush=True)

    def close(self) -> None:
        """Nothing is held."""


class TensorBoard:
    """`begins_after`: the step that is resumed; what another attempt wrote of later ones goes."""

    def __init__(self, folder: Path, *, begins_after: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # an optional package
        except ImportError as error:
            raise TrainError(["args.report_to: tensorboard is not installed here"]) from error
        self._writer = SummaryWriter(str(folder), purge_step=begins_after + 1)

    def write(self, step: int, record: Mapping[str, float]) -> None:
        for name, value in record.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """`id`: what a later attempt of the same run gives too."""

    def __init__(
        self, settings: Mapping[str, Any], *, name: str | None = None, id: str | None = None
    ) -> None:
        try:
            import wandb  # an optional package
        except ImportError as error:
            raise TrainError(["args.report_to: wandb is not installed here"]) from error
        self._run = wandb.init(name=name or id, id=id, config=dict(settings), resume="allow")

    def write(self, step: int, record: Mapping[str, float]) -> None:
        self._run.log(dict(record), step=step)

    def close(self) -> None:
        self._run.finish()


def _end_torn_line(path: Path) -> None:
    """A killed process may have left half a line; ours must not become its other half."""
    with path.open("ab+") as file:
        if file.tell() == 0:
            return
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")
