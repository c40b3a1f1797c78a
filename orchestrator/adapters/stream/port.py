"""The adapter of the port Stream: one connection for questions, more of them for transfers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.frames import Frame
from orchestrator.adapters.link import Link
from orchestrator.adapters.partial import Chunk as Key
from orchestrator.adapters.partial import Partial
from orchestrator.adapters.stream.chunk import Chunk, Range
from orchestrator.adapters.stream.crew import Crew, Lane
from orchestrator.adapters.stream.growth import Growth
from orchestrator.adapters.stream.pace import Pace
from orchestrator.adapters.stream.pool import Pool, Way
from orchestrator.adapters.stream.pull import SAFE, TRIES, Pull
from orchestrator.adapters.stream.push import Push
from orchestrator.adapters.stream.tuning import Tuning
from orchestrator.adapters.stream.work import Work
from orchestrator.adapters.whole import Wholes
from orchestrator.errors import IntegrityError, Unreachable
from orchestrator.ports import Moved, Progress
from remote.contract import CHUNK_BYTES, ContractError, FileEntry, Manifest, check_integer

RESTORE_WATCH_S = 15.0  # longer than the box takes to say how far it is
RESTORE_PATIENCE_S = 600.0  # without a byte that moved
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
        way: Way | None = None,
    ) -> None:
        self._pace = pace
        self._tuning = tuning
        self._way = way or Way()
        self._pool = Pool(connect)
        self._control = self._pool.control

    def expect(self, size_bytes: int) -> None:
        """About so many bytes will be asked for soon: begin to make the connections."""
        self._pool.make_control()
        self._make_ahead(size_bytes)

    def manifest(self, name: str, generation: int, size_bytes: int = 0) -> Manifest:
        """`size_bytes` is how large the checkpoint is, for what comes next."""
        self._make_ahead(size_bytes)
        request = {"op": "manifest", "name": name, "generation": generation}
        with self._control.working():
            data = self._ask(request)[1]
        try:
            return Manifest.decode(data)
        except ContractError as error:
            raise IntegrityError(
                f"The manifest of {name} on the box is none: {error}. What is published here is "
                "unharmed.",
                hint="gpujob teardown ends the run; its later checkpoints may be intact",
            ) from error

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
            with Wholes(partial, held, safe=SAFE) as wholes:
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
                self._pool.forget_ahead()
                wholes.finish()
            partial.finish()

    def ack(self, name: str, generation: int) -> None:
        with self._control.working():
            self._ask({"op": "ack", "name": name, "generation": generation})

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
        self._learn()
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

    def restore(self, name: str, digest: str, dest: str, progress: Progress) -> None:
        request = {"op": "restore", "name": name, "digest": digest, "dest": dest}
        most, moved_at = -1, time.monotonic()
        with self._control.working():
            while "digest" not in (
                reply := self._control.ask(request, patience_s=RESTORE_WATCH_S)[0]
            ):
                with self._control.mapped():
                    done = check_integer(reply.get("restored_bytes"))
                if done > most:
                    most, moved_at = done, time.monotonic()
                elif time.monotonic() - moved_at > RESTORE_PATIENCE_S:
                    raise Unreachable(f"{name} stands still on its way into place on the box.")
                progress(done)

    def close(self) -> None:
        self._pool.close()

    def _ask(self, request: dict[str, Any]) -> Frame:
        reply = self._control.ask(request)
        self._learn()
        return reply

    def _learn(self) -> None:
        self._way.rtt_s = self._control.rtt_s

    def _make_ahead(self, size_bytes: int) -> None:
        """Make the connections that a large transfer will begin with while the first comes up."""
        growth = Growth(self._tuning, self._way.rtt_s)
        count = growth.at_first(size_bytes, most=self._pace.streams())
        self._pool.make_ahead(count - 1, spacing_s=self._tuning.spacing_s)

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
            pool=self._pool,
            way=self._way,
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
