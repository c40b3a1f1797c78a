"""What says whose a mirror folder is: two runs never write into one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.durable import blocked, disk_room, make_folder, write_whole
from orchestrator.errors import BadJobFile, StorageBlocked
from remote.contract import shell_words


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


def require_stamp(folder: Path, stamp: Stamp, *, safe: str) -> None:
    """Raises StorageBlocked when the folder, which was stamped at launch, is not there with its
    stamp: its disk is not mounted, and what is put in its place would be lost from sight. Raises
    BadJobFile when it is another run's by now."""
    with disk_room(folder, safe=safe):
        try:
            _path(folder).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StorageBlocked(
                f"{folder} does not hold this run's checkpoints any more: its disk may not be "
                f"mounted. {safe}",
                hint="mount it again. If it was removed for good, and shall be filled anew: "
                f"{_claim_command(folder, stamp)}",
                reason="missing",
            ) from error
    check_stamp(folder, stamp.run)


def require_any_stamp(folder: Path) -> None:
    """As `require_stamp`, for who only reads what is in the folder."""
    safe = "What is held there is unharmed."
    with disk_room(folder, safe=safe):
        if not _path(folder).is_file():
            raise blocked(folder, "missing", safe=safe)


def set_stamp(folder: Path, stamp: Stamp) -> None:
    """Make `folder` the run's own. Raises BadJobFile when it is another's. Repeatable."""
    check_stamp(folder, stamp.run)
    if read_stamp(folder) is None:
        make_folder(_path(folder).parent, mode=0o755)
        write_whole(_path(folder), _record(stamp).encode() + b"\n", mode=0o644)


def _record(stamp: Stamp) -> str:
    return json.dumps({"v": 1, "run": stamp.run, "ledger": stamp.ledger})


def _claim_command(folder: Path, stamp: Stamp) -> str:
    own, file = shell_words([str(_path(folder).parent)]), shell_words([str(_path(folder))])
    return f"mkdir -p {own} && echo '{_record(stamp)}' > {file}"


def _path(folder: Path) -> Path:
    return folder / ".gpujob" / "run.json"
