"""The ends of files that grow: what a trainer said last, and how far it is."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Optional

from remote.agent.attempt import Attempt
from remote.agent.paths import Root
from remote.agent.trainer import read_secrets

TAIL_BYTES = 4096
_REDACTED = "[secret]"
_SHORTEST_SECRET = 6  # a shorter value is a word that the log may well hold for its own reasons


def log_tail(root: Root, attempt: Attempt) -> str:
    """The last lines that this attempt printed, at most 4 KiB, without the secrets' values."""
    began = attempt.read("baseline.json").get("log")
    text = _end(root.log, began if isinstance(began, int) else 0).decode("utf-8", "replace")
    with contextlib.suppress(FileNotFoundError):
        for value in read_secrets(root).values():
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, _REDACTED)
    return text.encode()[-TAIL_BYTES:].decode("utf-8", "ignore")


def last_step(metrics: Path) -> Optional[int]:
    """The step of the last whole line of `metrics.jsonl`."""
    for line in reversed(_end(metrics, 0).split(b"\n")[:-1]):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            step = json.loads(line)["step"]
            return step if isinstance(step, int) else None
    return None


def _end(path: Path, begin: int) -> bytes:
    """The last bytes from `begin` on; a secret may lie across the cut, so a few more are read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(begin, size), size - 2 * TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""
