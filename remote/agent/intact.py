"""Whether a file was cut short, as far as its own container says. Nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

_MAX_HEADER_BYTES = 100 * 1024 * 1024
_ZIP_HEAD, _ENTRY_HEAD, _ZIP_TAIL = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_ZIP_TAIL_BYTES, _TAIL_RECORD_BYTES = 65536 + 22, 22
_LARGE = 0xFFFFFFFF  # the true number is in a record for large archives, before the tail
_CONTAINERS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl")


def is_container(path: str) -> bool:
    """Whether a file of this name holds tensors in a container that tells its own end."""
    return path.endswith(_CONTAINERS)


def is_intact(path: Path) -> bool:
    """False for an empty file, a safetensors file whose size is not what its header says, and a
    torch file (a zip) without its directory and end. What is neither is taken as it is."""
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            return _is_whole_safetensors(file)
        head = file.read(len(_ZIP_HEAD))
        return _is_whole_zip(file) if head == _ZIP_HEAD else bool(head)


def _is_whole_zip(file: BinaryIO) -> bool:
    """The end record is there, and where it points the directory of the archive begins."""
    size = file.seek(0, 2)
    start = max(0, size - _ZIP_TAIL_BYTES)
    file.seek(start)
    data = file.read()
    at = data.rfind(_ZIP_TAIL)
    record = data[at : at + _TAIL_RECORD_BYTES]
    if at < 0 or len(record) < _TAIL_RECORD_BYTES:
        return False
    length = int.from_bytes(record[12:16], "little")
    offset = int.from_bytes(record[16:20], "little")
    if _LARGE in (length, offset) or not length:
        return True
    file.seek(offset)
    return offset + length <= start + at and file.read(len(_ENTRY_HEAD)) == _ENTRY_HEAD


def _is_whole_safetensors(file: BinaryIO) -> bool:
    """8 bytes of header length, the header, then the tensors up to the largest offset."""
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
