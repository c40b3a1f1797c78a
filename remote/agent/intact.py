"""Whether a weights file was cut short, as far as its own container says. Nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MAX_HEADER_BYTES = 100 * 1024 * 1024
_ZIP_HEAD, _ZIP_TAIL, _ZIP_TAIL_BYTES = b"PK\x03\x04", b"PK\x05\x06", 65536


def is_intact(path: Path) -> bool:
    """False for a safetensors file whose size is not what its header says, and for a torch file
    (a zip) without its end. What is neither is taken as it is."""
    if path.suffix == ".safetensors":
        return _is_whole_safetensors(path)
    with path.open("rb") as file:
        if file.read(len(_ZIP_HEAD)) != _ZIP_HEAD:
            return True
        size = file.seek(0, 2)
        file.seek(max(0, size - _ZIP_TAIL_BYTES))
        return _ZIP_TAIL in file.read()


def _is_whole_safetensors(path: Path) -> bool:
    """8 bytes of header length, the header, then the tensors up to the largest offset."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            return False
        try:
            header = json.loads(file.read(length))
            end = max((_end(key, value) for key, value in header.items()), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            return False
        return file.seek(0, 2) == 8 + length + end


def _end(key: str, value: Any) -> int:
    return 0 if key == "__metadata__" else int(value["data_offsets"][1])
