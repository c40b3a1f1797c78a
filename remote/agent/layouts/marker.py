"""The exact marker that our own trainer writes after a barrier."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Dict, Optional

from remote.agent.layouts.model import number
from remote.contract import ContractError, check_path, check_version

_NONCE = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


@dataclass(frozen=True)
class Marker:
    """These files of these sizes are the checkpoint."""

    name: str
    step: Optional[int]
    world_size: Optional[int]
    nonce: str
    files: Dict[str, int]


def read_marker(data: bytes) -> Marker:
    """Raises ContractError for anything but a whole marker."""
    try:
        record = json.loads(data)
        check_version(record, "marker")
        nonce = str(record["nonce"])
        files = {check_path(str(file["path"])): int(file["size"]) for file in record["files"]}
        name, step, world_size = str(record["name"]), record["step"], record["world_size"]
    except ContractError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractError("not a marker: %s" % error) from error
    if not _NONCE.match(nonce) or not files:
        raise ContractError("a marker with the nonce %r and %d files" % (nonce, len(files)))
    return Marker(name, number(step), number(world_size), nonce, files)
