"""Puts a checkpoint that the box still holds back into the trainer's folder: beside the requests
for it, so that whoever asks hears how far it is."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from remote.agent.durable import read_json, write_json
from remote.agent.locks import locked
from remote.agent.paths import Root
from remote.agent.replies import Refusal
from remote.agent.seal import Seal, load_seals
from remote.agent.trees import (
    Moved,
    copy_verified,
    holds_exactly,
    keep_only,
    matches,
    place_folder,
    resolve,
    staging_beside,
)
from remote.contract import PROTOCOL

WATCH_S = 5.0
POLL_S = 0.02
REPORT_S = 1.0
Asked = Tuple[str, str, str]


class Restores:
    """Those of one connection; they end with it. On a box one restores at a time, and a process
    that still does for a connection that is long gone is waited for."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._jobs: Dict[Asked, "Future[None]"] = {}

    def ask(self, name: str, digest: str, dest: str) -> Dict[str, Any]:
        """`digest` once `dest` is the sealed checkpoint `name` with it; until then, after WATCH_S
        at most, `restored_bytes`: ask again.

        Raises Refusal: not_found when no such seal is held, changed when its bytes are others."""
        asked, deadline = (name, digest, dest), time.monotonic() + WATCH_S
        resolve(dest)
        while True:
            job = self._jobs.get(asked) or self._begin(asked)
            if job and job.done():
                del self._jobs[asked]
                job.result()
                return {"digest": digest}
            if time.monotonic() >= deadline:
                return {"restored_bytes": _restored(self._root)}
            time.sleep(POLL_S)

    def _begin(self, asked: Asked) -> "Optional[Future[None]]":
        """None while another one is at it."""
        with contextlib.ExitStack() as held:
            if not held.enter_context(locked(self._root.restore_lock)):
                return None
            seal, place = _find(self._root, asked[0], asked[1]), resolve(asked[2])
            job: Future[None] = Future()
            self._jobs[asked] = job
            words = (job, held.pop_all(), self._root, seal, place)
            threading.Thread(target=_work, args=words, daemon=True).start()
            return job


def _work(
    job: "Future[None]", held: contextlib.ExitStack, root: Root, seal: Seal, place: Path
) -> None:
    error: Optional[BaseException] = None
    with held:
        try:
            _restore(seal, place, _telling(root))
        except BaseException as caught:
            error = caught
        root.restore.unlink(missing_ok=True)
    if error:
        job.set_exception(error)
    else:
        job.set_result(None)


def _restore(seal: Seal, place: Path, moved: Moved) -> None:
    """Build `place` by copies, never links, since a trainer may write into them; verified; one
    rename. Nothing is done when it is there."""
    if holds_exactly(place, seal.manifest, moved):
        return
    staged = staging_beside(place, seal.manifest.digest)
    try:
        for entry in seal.manifest.files:
            target = staged / entry.path
            if not matches(target, entry, moved):
                target.unlink(missing_ok=True)
                copy_verified(seal.folder / "tree" / entry.path, target, entry, moved)
        keep_only(staged, seal.manifest)
        place_folder(staged, place)
    except FileNotFoundError as error:
        raise Refusal("not_found", "%s is not kept here any more" % seal.name) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _telling(root: Root) -> Moved:
    """Leaves how far it is for all who ask, whatever process they ask."""
    done, told_at = 0, float("-inf")

    def tell(size: int) -> None:
        nonlocal done, told_at
        done += size
        if time.monotonic() - told_at >= REPORT_S:
            told_at = time.monotonic()
            write_json(
                root.restore, {"v": PROTOCOL, "state": "running", "bytes": done}, durable=False
            )

    return tell


def _restored(root: Root) -> int:
    done = (read_json(root.restore) or {}).get("bytes")
    return done if isinstance(done, int) else 0


def _find(root: Root, name: str, digest: str) -> Seal:
    for seal in reversed(load_seals(root.seals)):
        if seal.name == name and seal.manifest.digest == digest and seal.is_held:
            return seal
    raise Refusal("not_found", "no checkpoint %s with that digest is held here" % name)
