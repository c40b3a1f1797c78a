"""A second opinion: what the trainer wrote, hashed by the trainer itself, outside the run.

With TRAINER_WITNESS set, rank 0 appends one JSON line a checkpoint to that file. Nothing of
gpujob reads it; a test compares it with what arrived.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

VARIABLE = "TRAINER_WITNESS"


def witness(folder: Path, name: str, paths: list[str]) -> None:
    """Record the SHA-256 of `paths` below `folder`, and when they were complete."""
    record = os.environ.get(VARIABLE)
    if not record:
        return
    complete_at = time.time()
    files = {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in paths}
    line = {"name": name, "complete_at": complete_at, "files": files}
    with Path(record).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
