"""What the last lines of a trainer's log say about why it ended.

The strings are those of reference/trainer.md §3.3 (read in the programs' sources and real logs).
"""

from __future__ import annotations

import re
from typing import Literal

Why = Literal["ok", "crash", "oom", "config"]

_OOM = (
    "CUDA out of memory",
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "No available memory for the cache blocks",
)
_CONFIG = (
    "GatedRepoError",
    "401 Client Error",
    "RepositoryNotFoundError",
    "HFValidationError",
    "DeepSpeedConfigError",
    "Check batch related parameters",
    "device-side assert triggered",
    "no kernel image is available",
    "CUDA driver version is insufficient",
    "No space left on device",
    "SettingsError",
    "DataError",
    "command not found",
)
_COMMAND_RC = {2: "usage", 126: "not executable", 127: "command not found"}
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception|Interrupt)\b.*")


def classify(rc: int, tail: str) -> tuple[Why, str]:
    """Why a trainer that ended with `rc` ended, and the line that says it best.

    "oom" and "config" are never retried blindly: the same thing would happen again.
    """
    if rc == 0:
        return "ok", ""
    lines = [line.strip() for line in tail.replace("\r", "\n").split("\n") if line.strip()]
    for why, strings in (("oom", _OOM), ("config", _CONFIG)):
        found = next((line for line in lines if any(each in line for each in strings)), None)
        if found:
            return ("oom" if why == "oom" else "config"), found[:300]
    if rc in _COMMAND_RC:
        return "config", (lines[-1] if lines else _COMMAND_RC[rc])[:300]
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return "crash", (errors or lines or [f"exit code {rc}"])[-1][:300]
