"""What an attempt of a rehearsal told, from the files of its box."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.core.rehearsal import curve
from orchestrator.core.run import Attempt, Run, Seal

_MARK = b"gpujob-rehearsal-attempt: "
MOST_READ = 8 * 2**20


def told_by(attempt: Attempt, folder: Path) -> curve.Told:
    """The attempt's own piece of what its box told; `folder` is the run's."""
    folder = folder / attempt.instance
    pieces = _read(folder / "log").split(_MARK)
    number = str(attempt.number).encode()
    mine = [piece for piece in pieces[1:] if piece.partition(b"\n")[0].strip() == number]
    log = b"".join(mine) if len(pieces) > 1 else pieces[0]
    lines = _read(folder / "metrics.jsonl").splitlines(keepends=True)
    own = [line for line in lines if b'"attempt"' not in line or _names(line, number)]
    return curve.Told(log, b"".join(own))


def _names(line: bytes, number: bytes) -> bool:
    return re.search(rb'"attempt": ?"?' + number + rb'"?[,}]', line) is not None


def newest_state(run: Run, seals: tuple[Seal, ...]) -> bytes:
    here = [seal for seal in seals if seal.digest in run.mirrored and not seal.final]
    newest = max(here, key=lambda seal: seal.step or 0, default=None)
    return _read(Path(run.mirrored[newest.digest]) / "trainer_state.json") if newest else b""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_READ)
    except OSError:
        return b""
