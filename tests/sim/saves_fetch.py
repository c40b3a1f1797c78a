"""The rest of a checkpoint's way in the real-saves campaign: the real stream over pipes to the
agent's `serve`, the real mirror, and what is visible in it afterwards."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kit.agentbox import RUN, AgentBox

from orchestrator.adapters.link import Pipes
from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.adapters.stream import FrameStream
from orchestrator.errors import Unreachable
from remote.contract import Fact
from sim.saves_judge import Files

LEDGER = "0badcafe"
LOOK_S, GLANCE_S = 0.2, 0.02
KEPT = 3  # published checkpoints that stay, for the next ones to share files with


class ServeLink(Pipes):
    """The agent's `serve` in `process`, whose pipes are ours. The Link protocol."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert self._process.stdin and self._process.stdout
        reader, writer = (
            os.dup(end.fileno()) for end in (self._process.stdout, self._process.stdin)
        )
        self._process.stdin.close()
        self._process.stdout.close()
        super().__init__(reader, writer)

    def blame(self, error: Exception) -> Exception:
        return Unreachable(f"the agent's stream broke: {error}")

    def end(self) -> None:
        self._process.terminate()

    def close(self) -> None:
        super().close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass
class Fetcher:
    """Brings every `every`-th sealed checkpoint into a mirror, as told by the box's facts.
    Meanwhile somebody else looks at the mirror: `seen` is what each folder held at first sight.
    `published` is the folder of each (name, generation), `shown` what was seen of it: old ones
    are removed, and their names may be used again."""

    box: AgentBox
    folder: Path
    every: int
    seen: dict[str, Files] = field(default_factory=dict)
    published: dict[tuple[str, int], str] = field(default_factory=dict)
    shown: dict[tuple[str, int], Files | None] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    _done: int = 0

    def __post_init__(self) -> None:
        self._end, self._ended = threading.Event(), threading.Event()
        set_stamp(self.folder, Stamp(RUN, LEDGER))
        self._mirror = FolderMirror(self.folder, RUN, LEDGER)
        self._stream = FrameStream(lambda: ServeLink(self.box.popen("serve")))
        self._threads = [threading.Thread(target=each) for each in (self._run, self._observe)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Fetch what was told of until now, look once more, and end."""
        for event, thread in zip((self._end, self._ended), self._threads, strict=True):
            event.set()
            thread.join()
        self._stream.close()
        for key, folder in self.published.items():
            self.shown.setdefault(key, self.seen.pop(folder, None))

    def _run(self) -> None:
        ending = False
        while not ending:
            ending = self._end.wait(LOOK_S)
            facts = self.box.facts("checkpoint.sealed")
            for number, fact in enumerate(facts[self._done :], self._done):
                if number % self.every == 0:
                    self._fetch(fact)
            self._done = len(facts)

    def _fetch(self, fact: Fact) -> None:
        name, generation = fact.data["name"], fact.data["generation"]
        try:
            manifest = self._stream.manifest(name, generation)
            with self._mirror.partial(manifest) as into:
                self._stream.pull(name, generation, into, manifest, lambda _: None)
                place = self._mirror.publish(name, generation, manifest)
            self._stream.ack(name, generation)
        except Exception as error:
            self.trouble.append(f"{name}.{generation} was not fetched: {error}")
            return
        self.published[name, generation] = place.name
        for key in list(self.published)[:-KEPT]:
            if key not in self.shown and self.published[key] in self.seen:
                self._retire(key)

    def _retire(self, key: tuple[str, int]) -> None:
        """Out of sight first, for whoever looks."""
        folder, old = self.folder / self.published[key], self.folder / ".old"
        folder.rename(old)
        self.shown[key] = self.seen.pop(folder.name)
        shutil.rmtree(old)

    def _observe(self) -> None:
        ending = False
        while not ending:
            ending = self._ended.wait(GLANCE_S)
            for path in self.folder.iterdir():
                if not path.name.startswith(".") and path.name not in self.seen:
                    with suppress(FileNotFoundError):  # retired meanwhile
                        self._look_into(path)

    def _look_into(self, path: Path) -> None:
        before, found = path.stat().st_ino, contents(path)
        if path.stat().st_ino == before:
            self.seen[path.name] = found


def contents(folder: Path) -> Files:
    """Size and SHA-256 of every file below `folder`, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
