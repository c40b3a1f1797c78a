"""Says what happens as it happens: facts, log, metrics and sights from given offsets, and how the
agent is each second and when it has something new to say of itself. Who comes back with the last
offsets misses nothing and gets nothing twice."""

from __future__ import annotations

import base64
import json
import select
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Tuple

from remote.agent.heard import Ear
from remote.agent.paths import Root
from remote.agent.slot import read_slot
from remote.agent.start import living_agent
from remote.contract import MAGIC, MAX_LINE_BYTES, ContractError, Fact

POLL_S = 0.1
BEAT_S = 1.0
BLOCK_BYTES = 64 * 1024
BLOCKS_A_TURN = 16


def follow(root: Root, out: BinaryIO, offsets: Dict[str, int], ear: Ear) -> int:
    """Write to `out` until nobody reads it any more. `offsets` of events, log, metrics, sights.

    What the reader sends back is its sign of life, which `ear` takes down."""
    files: Dict[str, Callable[[int], Iterator[Tuple[int, Dict[str, Any]]]]] = {
        "events": lambda offset: _facts(root.events, offset),
        "log": lambda offset: _blocks("log", root.log, offset),
        "metrics": lambda offset: _blocks("metrics", root.metrics, offset),
        "sights": lambda offset: _blocks("sights", root.sights, offset),
    }
    beat_at, beat = float("-inf"), None
    try:
        out.write(MAGIC)
        while not _is_closed(out):
            for name, read in files.items():
                for offset, record in read(offsets[name]):
                    _say(out, record)
                    offsets[name] = offset
            slot = read_slot(root.heartbeat)
            if time.monotonic() - beat_at >= BEAT_S or slot != beat:
                beat_at, beat = time.monotonic(), slot
                _say(out, {"heartbeat": slot, "agent_alive": living_agent(root) is not None})
            out.flush()
            ear.listen()
            time.sleep(POLL_S)
    except BrokenPipeError:
        _abandon(out)
    return 0


def _facts(path: Path, offset: int) -> Iterator[Tuple[int, Dict[str, Any]]]:
    """Whole lines only; the rest of a line that is being written comes later."""
    for line in _read(path, offset, MAX_LINE_BYTES * 4).splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        offset += len(line)
        try:
            Fact.decode(line)
        except ContractError:
            continue  # not ours to repair: the offset of the next fact passes over it
        yield offset, {"file": "events", "end": offset, "line": json.loads(line)}


def _blocks(name: str, path: Path, offset: int) -> Iterator[Tuple[int, Dict[str, Any]]]:
    for _ in range(BLOCKS_A_TURN):
        data = _read(path, offset, BLOCK_BYTES)
        if not data:
            return
        said = {"file": name, "offset": offset, "data": base64.b64encode(data).decode()}
        offset += len(data)
        yield offset, said


def _read(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""


def _say(out: BinaryIO, record: Dict[str, Any]) -> None:
    out.write(json.dumps(record).encode() + b"\n")


def _is_closed(out: BinaryIO) -> bool:
    """Whether the reader hung up; a pipe tells without being written to."""
    poll = select.poll()
    poll.register(out.fileno(), 0)
    return bool(poll.poll(0))


def _abandon(out: BinaryIO) -> None:
    """What is buffered can reach nobody, and the interpreter must not complain about it."""
    try:
        out.close()
    except BrokenPipeError:
        return
