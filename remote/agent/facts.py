"""The agent's voice: facts, appended to `events.jsonl` durably and in order.

What was said before is read back at the start, so that a new supervisor does not repeat it.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, Dict, Hashable, Iterator, Set, Tuple

from remote.agent.durable import utc_now
from remote.contract import ContractError, Fact

# What makes two facts of a kind the same fact, when it may be told once only.
_KEYS: Dict[str, Tuple[str, ...]] = {
    "trainer.started": ("attempt",),
    "trainer.exited": ("attempt",),
    "agent.settled": ("attempt",),
    "checkpoint.sealed": ("name", "generation"),
    "checkpoint.dropped": ("name", "generation"),
    "checkpoint.pushed": ("name", "generation"),
    "push.gave_up": ("name", "generation"),
}


class Facts:
    """Appends facts of one supervisor (one `boot`). One thread tells."""

    def __init__(self, path: Path, instance: str) -> None:
        """Cuts off a torn last line: its fact was never told, and is told again."""
        self.boot = uuid.uuid4().hex
        self._instance = instance
        self._path = path
        self._seq = 0
        self._told: Set[Hashable] = set()
        _repair(path)
        for fact in read(path):
            self._told.add(_key(fact.kind, fact.data))

    def tell(self, kind: str, **data: Any) -> bool:
        """Append a fact, unless it is one that is told once and was. Returns when it is durable.

        Raises OSError, and then nothing was appended."""
        key = _key(kind, data)
        if kind in _KEYS and key in self._told:
            return False
        fact = Fact(self._instance, self.boot, self._seq + 1, utc_now(), kind, data)
        _append(self._path, fact.encode())
        self._seq += 1
        self._told.add(key)
        return True

    def was_told(self, kind: str, **data: Any) -> bool:
        return _key(kind, data) in self._told


def read(path: Path) -> Iterator[Fact]:
    """Every readable fact in the file; a line that is none is passed over."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                yield Fact.decode(line)
            except ContractError:
                continue


def _key(kind: str, data: Dict[str, Any]) -> Hashable:
    return (kind, *(data.get(name) for name in _KEYS.get(kind, ())))


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError("the disk took only a part of a line")
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _repair(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            file.truncate(whole)
            os.fsync(descriptor)
