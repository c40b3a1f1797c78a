"""DPO's reference log-probabilities: computed once, from the untouched start weights, and kept.

They travel with every checkpoint. Computed again after a resume they would be those of the
half-trained policy, and nothing would look wrong.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from remote.trainer.problems import TrainError

FILE = "reference_logprobs.safetensors"


@dataclass(frozen=True)
class Reference:
    """Summed log-probabilities by row, chosen and rejected; NaN where none were needed."""

    values: npt.NDArray[np.float32]
    fingerprint: str

    def of(self, rows: Sequence[int], *, device: torch.device) -> Tensor:
        """Those of `rows`: chosen, rejected, chosen, …"""
        return torch.from_numpy(self.values[list(rows)].reshape(-1)).to(device)

    def knows(self, rows: Sequence[int]) -> bool:
        return not bool(np.isnan(self.values[list(rows)]).any())

    def save(self, path: Path) -> None:
        """Write whole and then rename: a link to the old file stays what it was."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        about = {"fingerprint": self.fingerprint}
        save_file({"log_probs": self.values}, temporary, metadata={"about": json.dumps(about)})
        temporary.replace(path)


def load(path: Path, *, fingerprint: str) -> Reference:
    """Read what `save` wrote. Raises TrainError when it is missing or of other data."""
    if not path.is_file():
        raise TrainError(
            [
                f"resume: {path} is missing. DPO's reference cannot be computed from a checkpoint:"
                " it would be the half-trained policy. Resume from a checkpoint that has it, or"
                " start again from the first weights"
            ]
        )
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
            values = file.get_tensor("log_probs")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainError([f"resume: {path} cannot be read: {error}"]) from error
    if about["fingerprint"] != fingerprint:
        raise TrainError(
            [f"resume: {path} was computed for other data, template, tokenizer or start model"]
        )
    return Reference(values, fingerprint)


def place(source: Path, folder: Path, *, name: str = FILE) -> None:
    """Put the file into a checkpoint: a link where that works, else a copy."""
    target = folder / name
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
