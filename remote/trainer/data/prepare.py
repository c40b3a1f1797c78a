"""From files to tokenised rows on disk, once a machine, whatever the number of ranks.

One rank of a machine does the work while the others wait for its lock: a collective would time out
over many rows. What is there already, of the same files and settings, is used again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from remote.trainer.data.encode import MAX_PROBLEMS, Recipe
from remote.trainer.data.files import Block, FileError, RowError, blocks, columns, expand
from remote.trainer.data.rows import PARTS, Request, Store
from remote.trainer.data.shapes import known_columns, shape
from remote.trainer.data.store import VERSION, Tokens, Writer
from remote.trainer.data.templates import source
from remote.trainer.data.workers import MOST, Here, Workers
from remote.trainer.problems import TrainError

WORTH_PROCESSES_BYTES = 2 * 2**20


def prepare(
    request: Request,
    tokenizer: Any,
    *,
    rank: int = 0,
    ranks: int = 1,
    barrier: Callable[[], None] = lambda: None,
) -> Store:
    """Tokenise `request` into a folder of `request.cache`, and map it.

    Called by all ranks at once; the lock and not `rank` says which of a machine works. Raises
    TrainError on all of them, naming file and row of up to 20 problems, and before anything is
    tokenised when a file cannot be used at all.
    """
    paths = expand(request.files, key=request.key)
    recipe = recipe_of(request, tokenizer)
    place = _Place(request.cache, _key(request, paths, recipe))
    with place.lock() as lock:
        leads = _try_to_lead(lock)
        if leads:
            place.said.unlink(missing_ok=True)
        barrier()  # from here on only one of this machine leads
        if not leads:
            fcntl.flock(lock, fcntl.LOCK_SH)
            return place.result()
        try:
            return place.result(again=lambda: _build(place.folder, request, paths, recipe))
        except TrainError as error:
            place.said.write_text(json.dumps(error.problems), encoding="utf-8")
            raise


def recipe_of(request: Request, tokenizer: Any) -> Recipe:
    """All that decides the tokens. Raises TrainError for a tokenizer without a fast form."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TrainError(
            [
                f"model: its tokenizer ({type(tokenizer).__name__}) has no fast form; save it once"
                " with AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained"
            ]
        )
    names = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    return Recipe(
        tokenizer=backend.to_str(),
        names=names,
        source=source(request.template, tokenizer),
        kind=request.kind,
        max_length=request.max_length,
        vocabulary=request.vocabulary,
    )


class _Place:
    """Where one preparation's result is, its lock, and what it said when it failed."""

    def __init__(self, cache: Path, key: str) -> None:
        self.folder = cache / key
        self.said = cache / f"{key}.problems.json"
        self._lock = cache / f"{key}.lock"

    def lock(self) -> IO[bytes]:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            return self._lock.open("wb")
        except OSError as error:
            raise _unwritable(self.folder.parent, error) from error

    def result(self, *, again: Callable[[], None] | None = None) -> Store:
        """What is there, else what `again` makes. Raises TrainError."""
        try:
            return Tokens(self.folder)
        except (OSError, ValueError, KeyError, TypeError):
            if again is None:
                raise TrainError(self._problems()) from None
        again()
        return Tokens(self.folder)

    def _problems(self) -> list[str]:
        try:
            return list(json.loads(self.said.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return [f"{self.folder}: the rank that prepared it ended before it was done"]


def _try_to_lead(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _key(request: Request, paths: list[Path], recipe: Recipe) -> str:
    """What the result depends on, as far as it is quickly told. A resume compares the tokens
    themselves (`Store.fingerprint`), which do not depend on when a file was copied."""
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    about = [VERSION, files, request.kind, request.max_length, request.limit, request.vocabulary]
    texts = [recipe.tokenizer, recipe.source.text, recipe.source.yaml, sorted(recipe.names.items())]
    return hashlib.sha256(json.dumps([about, texts]).encode()).hexdigest()[:32]


def _build(folder: Path, request: Request, paths: list[Path], recipe: Recipe) -> None:
    _check_files(request, paths)
    growing = folder.with_name(f"{folder.name}.partial")
    try:
        writer = Writer(growing, parts=PARTS[request.kind])
        try:
            _write(writer, request, paths, recipe)
            writer.close()
        except BaseException:
            writer.abandon()
            raise
        _replace(growing, folder)
    except OSError as error:
        raise _unwritable(growing, error) from error


def _check_files(request: Request, paths: list[Path]) -> None:
    """Look at every file before work begins: the last may be the one that is broken."""
    problems = []
    for path in paths:
        try:
            names = columns(path)
            if names is not None:
                shape(names, request.kind)
        except (FileError, RowError) as error:
            problems.append(f"{request.key}: {path}: {error}")
    if problems:
        raise TrainError(_shortened(problems))


def _write(writer: Writer, request: Request, paths: list[Path], recipe: Recipe) -> None:
    problems: list[str] = []
    with _made_by(recipe, paths, request.limit) as makers:
        for block, part in makers.parts(_blocks(request, paths, problems)):
            writer.add(block.path, part)
            problems += [f"{request.key}: {block.path}: {each}" for each in part.problems]
            if len(problems) >= MAX_PROBLEMS:
                break
    if problems:
        raise TrainError(_shortened(problems))
    if not writer.read:
        raise TrainError([f"{request.key}: {', '.join(request.files)}: no rows"])


def _made_by(recipe: Recipe, paths: list[Path], limit: int | None) -> Here | Workers:
    cores = min(MOST, len(os.sched_getaffinity(0)))
    here = Here(recipe)  # also tells what is wrong with the template, before any process starts
    size = sum(path.stat().st_size for path in paths)
    if cores == 1 or size < WORTH_PROCESSES_BYTES or (limit or 2**62) < 10_000:
        return here
    return Workers(recipe, cores)


def _blocks(request: Request, paths: list[Path], problems: list[str]) -> Iterator[Block]:
    """The blocks of all files, up to the limit; where one cannot be read on is a problem."""
    left = request.limit
    for path in paths:
        try:
            for block in blocks(path, only=known_columns(request.kind)):
                if left is None:
                    yield block
                    continue
                yield replace(block, count=min(left, block.count))
                left -= min(left, block.count)
                if left == 0:
                    return
        except FileError as error:
            problems.append(f"{request.key}: {path}: {error}")


def _replace(growing: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what was there could not be used
    growing.rename(folder)


def _shortened(problems: list[str]) -> list[str]:
    more = len(problems) - MAX_PROBLEMS
    return problems if more <= 0 else [*problems[:MAX_PROBLEMS], f"data: and at least {more} more"]


def _unwritable(path: Path, error: OSError) -> TrainError:
    return TrainError(
        [f"data: {path}: tokenised rows cannot be written there: {error.strerror or error}"]
    )
