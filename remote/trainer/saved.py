"""Reads what torch.save wrote, as data and never as code, and says when it is torn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch

from remote.trainer.problems import TrainError

T = TypeVar("T")
_BROKEN = (
    *(OSError, EOFError, UnpicklingError, RuntimeError),
    *(LookupError, TypeError, ValueError, AttributeError),
)


def read(path: Path, use: Callable[[Any], T], *, device: torch.device | str = "cpu") -> T:
    """What `use` makes of a file of a checkpoint. Raises TrainError when one of both cannot."""
    try:
        return use(torch.load(path, map_location=device, weights_only=True))
    except _BROKEN as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise TrainError([f"resume: {path} cannot be read: {said}"]) from error
