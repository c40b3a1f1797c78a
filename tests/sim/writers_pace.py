"""How a writer of the real-saves campaign saves: what the seed makes slow, how long a checkpoint
lives, and the writer's own word on what was complete and when: the oracle."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

PAUSES_S = (0.0, 0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5)
HELD, ABSENT = "held", "absent"
LAST = 0.999  # a rank's last file is the one that a rule may forget


@dataclass(frozen=True)
class Late:
    """One write of one save: the `share`-th of its rank's writes, half done for too long
    (`held`) or not begun (`absent`)."""

    rank: int
    share: float
    kind: str


@dataclass(frozen=True)
class Pace:
    """What a seed says of each save. The first two are quick, so that writes can be counted."""

    seed: int
    ranks: int
    late_every: int
    late_s: float

    def late(self, step: int) -> Late | None:
        if step < 3 or step % self.late_every:
            return None
        chance = Random(f"{self.seed}/late/{step}")
        share = chance.choice((chance.random(), LAST))
        return Late(chance.randrange(self.ranks), share, chance.choice((HELD, ABSENT)))

    def pause_s(self, step: int) -> float:
        """How long to do nothing between save `step` and the next one."""
        return Random(f"{self.seed}/pause/{step}").choice(PAUSES_S)


class Writer:
    """One rank. `barrier` waits for all; `root` is where checkpoints appear."""

    def __init__(
        self, root: Path, record: Path, pace: Pace, *, rank: int, barrier: Callable[[], None]
    ) -> None:
        self.root = root.absolute()
        self._record = record
        self._pace = pace
        self._rank = rank
        self._barrier = barrier
        self._late: Late | None = None
        self._writes, self._usual = 0, 1
        if rank == 0:
            sys.addaudithook(self._on_audit)

    def begin(self, step: int) -> None:
        """After the pause that the checkpoint before was left alone for."""
        time.sleep(self._pace.pause_s(step - 1))
        late = self._pace.late(step)
        self._late = late if late and late.rank == self._rank else None
        self._writes = 0

    def end(self, step: int, *paths: Path, name: str = "") -> None:
        """Every rank has returned from its save: what lies at `paths` now is the checkpoint,
        which is called `name`, or else as the path is."""
        self._barrier()
        at = time.time()
        self._usual = max(1, self._writes)
        if self._rank == 0:
            files = sorted(file for path in paths for file in _walk(path.absolute()))
            told = {each.relative_to(self.root).as_posix(): _digest(each) for each in files}
            word = {"save": step, "name": name or paths[0].name, "complete_at": at}
            self.say({**word, "files": told})
        self._barrier()

    def slowly(
        self, path: object, write: Callable[[], Any], data: Callable[[], bytes] | None = None
    ) -> Any:
        """Do `write`, or when its turn has come to be late, put `data` into `path` (a name or an
        open file) with a long break. Without `data` it can only begin late."""
        turn, self._writes = self._writes, self._writes + 1
        late = self._late
        if late is None or turn != int(late.share * self._usual):
            return write()
        began = time.time()
        done = None
        if late.kind == HELD and data:
            self._half(path, data())
        else:
            time.sleep(self._pace.late_s)
            done = write()
        word = {"late": _describe(path), "kind": late.kind, "rank": self._rank}
        self.say({**word, "took_s": round(time.time() - began, 2)})
        return done

    def say_deleting(self, name: str) -> None:
        """Before it is done, in part or as a whole."""
        self.say({"deleting": name, "at": time.time()})

    def say(self, word: dict[str, Any]) -> None:
        with self._record.open("a") as file:
            file.write(json.dumps(word) + "\n")

    def _half(self, path: object, data: bytes) -> None:
        if not isinstance(path, (str, os.PathLike)):
            self._pour(path, data)
            return
        with Path(path).open("wb") as file:
            self._pour(file, data)

    def _pour(self, file: Any, data: bytes) -> None:
        file.write(data[: len(data) // 2])
        file.flush()
        time.sleep(self._pace.late_s)
        file.write(data[len(data) // 2 :])

    def _on_audit(self, event: str, words: tuple[Any, ...]) -> None:
        """Python tells of every removal before it happens, whoever asks for it."""
        if event not in ("shutil.rmtree", "os.remove") or isinstance(words[0], int):
            return
        path = Path(os.fsdecode(words[0])).absolute()
        if path.parent == self.root:
            self.say_deleting(path.name)


def _describe(path: object) -> str:
    return Path(path).name if isinstance(path, (str, os.PathLike)) else type(path).__name__


def _walk(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


def _digest(path: Path) -> list[Any]:
    data = path.read_bytes()
    return [len(data), hashlib.sha256(data).hexdigest()]
