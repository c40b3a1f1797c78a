"""The adapter of the port Stream: one connection for questions, more of them for transfers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.frames import Frames
from orchestrator.adapters.link import Link
from orchestrator.adapters.partial import Chunk as Key
from orchestrator.adapters.partial import Partial
from orchestrator.adapters.stream.chunk import Chunk, Range
from orchestrator.adapters.stream.crew import Crew, Lane
from orchestrator.adapters.stream.pace import Pace
from orchestrator.adapters.stream.pull import SAFE, TRIES, Pull
from orchestrator.adapters.stream.push import Push
from orchestrator.adapters.stream.tuning import Tuning
from orchestrator.adapters.stream.whole import Wholes
from orchestrator.adapters.stream.work import Work
from orchestrator.errors import IntegrityError
from orchestrator.ports import Moved, Progress
from remote.contract import CHUNK_BYTES, FileEntry, Manifest

RESTORE_PATIENCE_S = 600.0  # a box without hard links copies
_NO_PACE = Pace()
_STANDARD = Tuning()


class FrameStream:
    """Connects at first use, and again after a failure. One thread works, any may close."""

    def __init__(
        self,
        connect: Callable[[], Link],
        *,
        pace: Pace = _NO_PACE,
        tuning: Tuning = _STANDARD,
    ) -> None:
        self._connect = connect
        self._pace = pace
        self._tuning = tuning
        self._control = Frames(connect)
        self._lock = threading.Lock()
        self._frames = {self._control}
        self._is_closed = False

    def manifest(self, name: str, generation: int) -> Manifest:
        request = {"op": "manifest", "name": name, "generation": generation}
        with self._control.working(), self._control.mapped():
            return Manifest.decode(self._control.ask(request)[1])

    def pull(
        self, name: str, generation: int, into: Path, manifest: Manifest, progress: Progress
    ) -> None:
        """`progress` is told the bytes of the tree that are verified here so far.

        What is in `into` and its journal from an earlier try is used again once it was hashed.
        A chunk that comes wrong is fetched again, three times in all."""
        _check_tree(manifest)
        partial = Partial(into, manifest)
        with disk_room(into, safe=SAFE):
            held = partial.resume()
            missing = [key for key in _keys(manifest.files) if key not in held]
            work = self._work(manifest, missing, partial.received)
            with Wholes(partial, held) as wholes:
                wholes.begin()
                pull = Pull(
                    name,
                    generation,
                    partial=partial,
                    work=work,
                    wholes=wholes,
                    tuning=self._tuning,
                )
                crew = self._crew(work, pull.run)
                self._run(crew, work, manifest.size_bytes, progress, failed=wholes.failed)
                wholes.finish()
            partial.finish()

    def ack(self, name: str, generation: int) -> None:
        with self._control.working():
            self._control.ask({"op": "ack", "name": name, "generation": generation})

    def push(
        self,
        source: Path,
        manifest: Manifest,
        dest: str,
        mode: Literal["merge", "folder"],
        progress: Progress,
    ) -> None:
        """`progress` is told the bytes of the tree that the box holds so far."""
        push = Push(source, manifest, self._control)
        need = push.offer(dest, mode)
        for _ in range(TRIES):
            work = self._work(manifest, need, push.received)
            self._run(self._crew(work, push.bind(work)), work, manifest.size_bytes, progress)
            need = push.commit(dest)
            if not need:
                return
        path, index = need[0]
        raise IntegrityError(
            f"Chunk {index} of {path} arrived {TRIES} times with other bytes than were sent.",
            hint="gpujob teardown, then launch again",
        )

    def restore(self, name: str, digest: str, dest: str) -> None:
        request = {"op": "restore", "name": name, "digest": digest, "dest": dest}
        with self._control.working():
            self._control.ask(request, patience_s=RESTORE_PATIENCE_S)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            frames = list(self._frames)
        for each in frames:
            each.close()

    def _work(
        self, manifest: Manifest, missing: Sequence[Key], received: Mapping[Key, Sequence[Range]]
    ) -> Work:
        entries = {entry.path: entry for entry in manifest.files}
        sizes = (min(CHUNK_BYTES, entries[p].size - i * CHUNK_BYTES) for p, i in missing)
        chunks = (Chunk(entries[p], i, received.get((p, i), ())) for p, i in missing)
        return Work(chunks, sum(sizes), self._tuning)

    def _crew(self, work: Work, run: Callable[[Lane], None]) -> Crew:
        return Crew(
            work,
            run,
            control=self._control,
            connect=self._another,
            release=self._give_back,
            tuning=self._tuning,
            pace=self._pace,
        )

    def _run(
        self,
        crew: Crew,
        work: Work,
        size: int,
        progress: Progress,
        failed: Callable[[], BaseException | None] = lambda: None,
    ) -> None:
        """Report as it moves: the first and the last word always, the others not too often."""
        told_at = [time.monotonic()]

        def tell() -> None:
            moved = Moved(size - work.left)
            moved.streams, moved.bytes_per_s = crew.streams, work.meter.rate()
            moved.is_paused = self._pace.is_paused
            progress(moved)

        def told() -> None:
            if error := failed():
                crew.fail(error)
            now = time.monotonic()
            if now - told_at[0] >= self._tuning.report_s:
                told_at[0] = now
                tell()

        tell()
        if not work.is_done:
            crew.run(told)
            tell()

    def _another(self) -> Frames:
        frames = Frames(self._connect)
        with self._lock:
            self._frames.add(frames)
            is_closed = self._is_closed
        if is_closed:
            frames.close()
        return frames

    def _give_back(self, frames: Frames) -> None:
        """Only the connection for questions stays open when a transfer ends."""
        if frames is not self._control:
            frames.close()
            with self._lock:
                self._frames.discard(frames)


def _keys(files: Iterable[FileEntry]) -> Iterator[Key]:
    for entry in files:
        for index in range(len(entry.chunks)):
            yield entry.path, index


def _check_tree(manifest: Manifest) -> None:
    """A name cannot be a file and a folder at once."""
    files = {entry.path for entry in manifest.files}
    for path in files:
        parts = path.split("/")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise IntegrityError(f"The manifest has a file inside the file of {path!r}.")
