"""What says whose a mirror folder is: two runs never write into one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.durable import make_folder, write_whole
from orchestrator.errors import BadJobFile


@dataclass(frozen=True)
class Stamp:
    """The run that writes to a mirror folder, and the ledger that knows the run."""

    run: str
    ledger: str


def read_stamp(folder: Path) -> Stamp | None:
    """None for a folder that no run has used. Raises BadJobFile when it cannot be read."""
    try:
        record = json.loads(_path(folder).read_text())
        return Stamp(str(record["run"]), str(record["ledger"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadJobFile(
            f"{_path(folder)} does not say whose folder it is ({error}); nothing was changed.",
            hint="choose another folder in checkpoints.mirror",
        ) from error


def check_stamp(folder: Path, run: str | None = None) -> None:
    """Raises BadJobFile when another run than `run` mirrors to `folder`; a run that is only
    planned has no id yet, and any stamp is another's."""
    stamp = read_stamp(folder)
    if stamp is not None and stamp.run != run:
        raise BadJobFile(
            f"{folder} holds the checkpoints of run {stamp.run}; nothing was changed.",
            hint="choose another folder in checkpoints.mirror, or leave it out",
        )


def set_stamp(folder: Path, stamp: Stamp) -> None:
    """Make `folder` the run's own. Raises BadJobFile when it is another's. Repeatable."""
    check_stamp(folder, stamp.run)
    if read_stamp(folder) is None:
        make_folder(_path(folder).parent, mode=0o755)
        record = {"v": 1, "run": stamp.run, "ledger": stamp.ledger}
        write_whole(_path(folder), json.dumps(record).encode() + b"\n", mode=0o644)


def _path(folder: Path) -> Path:
    return folder / ".gpujob" / "run.json"
