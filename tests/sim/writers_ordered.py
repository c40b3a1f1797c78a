"""Writers that follow the order in which a trainer writes that does not run here: its ranks are
threads, which nothing orders but the barriers between phases."""

from __future__ import annotations

import io
import pickle
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from kit.writers_of_layouts import WRITERS, Move, Op, Remove, Save, Write

from sim.writers_pace import Writer

WORLD = 2
SIZE = 20_000
Start = Callable[[int, Callable[[], None]], Writer]


def play(start: Start, name: str, saves: int, out: Path) -> None:
    """`saves` of WRITERS[`name`] on two ranks, of which one checkpoint is kept."""
    barrier = threading.Barrier(WORLD)
    wait = lambda: (barrier.wait(), None)[1]  # noqa: E731
    ranks = [_Rank(start(rank, wait), rank, wait, name, out) for rank in range(WORLD)]
    threads = [threading.Thread(target=rank.run, args=(saves,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Rank:
    def __init__(
        self, writer: Writer, rank: int, wait: Callable[[], None], name: str, out: Path
    ) -> None:
        self._writer = writer
        self._rank = rank
        self._wait = wait
        self._make = WRITERS[name]
        self._out = out

    def run(self, saves: int) -> None:
        before: Save | None = None
        for step in range(1, saves + 1):
            save = self._make(step, WORLD)
            self._writer.begin(step)
            for number, phase in enumerate(save.phases):
                for turn, op in enumerate(phase[self._rank] if self._rank < len(phase) else []):
                    self._do(op, f"{step}/{number}/{self._rank}/{turn}")
                self._wait()
            self._writer.end(step, *_files(save, self._out), name=save.name)
            if before and self._rank == 0:
                self._writer.say_deleting(before.name)
                for removal in (each for group in before.forget for each in group):
                    (self._out / removal.path).unlink(missing_ok=True)
            before = save

    def _do(self, op: Op, seed: str) -> None:
        match op:
            case Write(path, data):
                self._write(self._out / path, _fresh(data, seed))
            case Move(source, target):
                move = (self._out / source).rename
                self._writer.slowly(target, lambda: move(self._out / target))
            case Remove(path):
                (self._out / path).unlink()

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer.slowly(path, lambda: path.write_bytes(data), lambda: data)


def _files(save: Save, out: Path) -> Iterator[Path]:
    """The checkpoint's folder, and what belongs to it beside it."""
    if (out / save.name).exists():
        yield out / save.name
    for path in sorted(save.needed):
        if not (out / save.name / path).exists() and path != save.name:
            yield out / path


def _fresh(data: bytes, seed: str) -> bytes:
    """The same kind of file with other bytes, so that no save looks like another."""
    random = Random(seed).randbytes(SIZE)
    if data.startswith(b"PK"):
        return _torch_file(data, random)
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and length < len(data):
        return data[:8] + data[8 : 8 + length] + random[: len(data) - 8 - length]
    return data


def _torch_file(data: bytes, tensor: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        record: Any = pickle.loads(archive.read("archive/data.pkl"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(record, protocol=2))
        archive.writestr("archive/data/0", tensor)
    return buffer.getvalue()
