"""What the stand-ins share: files that look whole, a loss that falls, and a crash on demand.

A stand-in reads a real trainer's command line and settings and writes its layout and log lines,
without a model. It refuses a machine with a GPU: nobody should pay for it."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import shutil
import sys
import time
import zipfile
from pathlib import Path

STEP_S = float(os.environ.get("STAND_IN_STEP_S", "0.003"))
SAVE_S = float(os.environ.get("STAND_IN_SAVE_S", "2.5"))
STEPS = int(os.environ.get("STAND_IN_STEPS", "600"))  # where the data would decide
CRASH_AT = int(os.environ.get("STAND_IN_CRASH_AT", "0"))
CURVE = os.environ.get("STAND_IN_CURVE", "falls")  # falls, flat, nan
NAN_FROM = 30
NO_ROWS = bool(os.environ.get("STAND_IN_NO_ROWS"))  # of a resume at the end of an epoch
CRASHED = Path("stand-in.crashed")


def begin() -> None:
    """Exit 2 on a machine that costs money."""
    if shutil.which("nvidia-smi"):
        sys.exit("this is a stand-in for your code: put your checkout where `code.path` says")


def world() -> int:
    """Ranks that the launcher was asked for."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def take_step(step: int) -> None:
    """A step's time; in one life, at STAND_IN_CRASH_AT, the end of it."""
    time.sleep(STEP_S)
    if step == CRASH_AT and not CRASHED.exists():
        CRASHED.touch()
        raise RuntimeError(f"stand-in: asked to crash at step {step}")


def rest(steps: int) -> None:
    """After a save, in place of the `steps` until the next one: real ones take seconds, so that
    nobody is late who stops at a checkpoint."""
    time.sleep(min(SAVE_S, 0.03 * steps))


def loss(step: int, first: float = 2.5) -> float:
    """Of a healthy run: noisy, and 30 % lower after 100 steps. `flat` and `nan` are not."""
    wobble = 0.02 * first * math.sin(12.9898 * step)
    if CURVE == "flat":
        return first + wobble
    if CURVE == "nan" and step >= NAN_FROM:
        return math.nan
    return first * (0.6 + 0.4 * math.exp(-step / 70)) + wobble


def grad_norm(step: int) -> float:
    return math.nan if CURVE == "nan" and step >= NAN_FROM else 0.9 + 0.1 * math.sin(step)


def write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def torch_file(record: object = None) -> bytes:
    """What torch.save writes: a zip with a pickle and a tensor's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # A time of its own would make two files of one step differ.
        for name, data in (("data.pkl", pickle.dumps(record, protocol=2)), ("data/0", b"\1" * 200)):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
    return buffer.getvalue()


def safetensors(step: int, size: int = 200) -> bytes:
    """Weights that only this step has."""
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"w": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + step.to_bytes(4, "little") * (size // 4)


def keep_newest(found: list[Path], limit: int | None) -> None:
    """Retention: whole folders, or files, the oldest first."""
    for old in found[:-limit] if limit else []:
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink()
