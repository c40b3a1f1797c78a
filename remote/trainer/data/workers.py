"""Processes that tokenise, and the threads that hand them blocks and take what they make.

Processes of our own and not a pool of multiprocessing's: those outlive a parent that is killed.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType

from remote.trainer.data.encode import Encoder, Part, Recipe
from remote.trainer.data.files import Block
from remote.trainer.problems import TrainError

MOST = 32
_AHEAD = 2  # blocks a worker, read before they are needed


class Here:
    """Tokenises in this process, for little data."""

    def __init__(self, recipe: Recipe) -> None:
        self._encoder = Encoder(recipe)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was started."""

    def parts(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Part]]:
        for block in blocks:
            yield block, self._encoder.block(block)


class Workers:
    """Tokenises in processes. Holds a few blocks a worker in memory, however many there are."""

    def __init__(self, recipe: Recipe, count: int) -> None:
        self._threads = ThreadPoolExecutor(count)
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._count = count
        self._all = [_Worker(recipe) for _ in range(count)]
        for worker in self._all:
            self._idle.put(worker)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._all:
            worker.end(at_once=kind is not None)
        self._threads.shutdown(cancel_futures=True)

    def parts(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Part]]:
        """What becomes of each block, in their order. Raises TrainError when a worker dies."""
        waiting: deque[tuple[Block, Future[Part]]] = deque()
        for block in blocks:
            waiting.append((block, self._threads.submit(self._made, block)))
            if len(waiting) >= _AHEAD * self._count:
                first, part = waiting.popleft()
                yield first, part.result()
        for first, part in waiting:
            yield first, part.result()

    def _made(self, block: Block) -> Part:
        worker = self._idle.get()
        try:
            return worker.ask(block)
        finally:
            self._idle.put(worker)


class _Worker:
    def __init__(self, recipe: Recipe) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "remote.trainer.data.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._recipe: Recipe | None = recipe

    def ask(self, block: Block) -> Part:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            if self._recipe is not None:
                pickle.dump(self._recipe, process.stdin)
                self._recipe = None
            pickle.dump(block, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            answer: Part | tuple[str, ...] = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise TrainError(
                [
                    f"{block.path}: row {block.first} and on: the process that tokenised them"
                    f" ended with {process.wait()} (negative: killed by that signal, as when"
                    " memory runs out); what it said is above"
                ]
            ) from error
        if isinstance(answer, tuple):
            raise TrainError(answer)
        return answer

    def end(self, *, at_once: bool) -> None:
        process = self._process
        if at_once:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close(pipe)
        process.wait()


def _close(pipe: object) -> None:
    try:
        pipe.close()  # type: ignore[attr-defined]
    except BrokenPipeError:
        """It ended before it had read everything."""
