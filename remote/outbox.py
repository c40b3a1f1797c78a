"""The seals of a box on their way to S3, one after the other; what fails with one is no matter to
the others."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, Optional

from remote.agent.durable import read_json, utc_now, write_json
from remote.agent.paths import Root
from remote.agent.pusher import is_settled
from remote.agent.seal import Seal, load_seals, load_unreadable
from remote.contract import PROTOCOL, ContractError, pushed_uri, split_uri
from remote.pushing import Changed, Push
from remote.s3 import Bucket, Busy, Closed, Denied, Server, StoreError, read_keys

STREAMS = 4
REPORT_S = 1.0


@dataclass(frozen=True)
class Aim:
    """Where to push to, as `push.json` says (formats.md §5)."""

    also: str
    run: str
    server: Server
    bytes_per_s: Optional[float]

    @staticmethod
    def read(root: Root) -> Aim:
        record = read_json(root.push)
        if record is None:
            raise Denied("push.json is not on this box")
        server = Server(
            endpoint_url=str(record.get("endpoint_url") or ""),
            region=str(record.get("region") or ""),
            patience_s=float(record.get("patience_s") or Server.patience_s),
            pause_s=float(record.get("pause_s") or Server.pause_s),
        )
        pace = record.get("bytes_per_s")
        return Aim(str(record["also"]), str(record["run"]), server, float(pace) if pace else None)

    def open(self, root: Root, streams: int) -> Bucket:
        try:
            keys = read_keys(root.push_keys.read_text())
        except FileNotFoundError as error:
            raise Denied("there are no keys for S3 on this box") from error
        return Bucket(self.server, keys, split_uri(self.also)[0], streams=streams)

    def uri(self, name: str, digest: str) -> str:
        return pushed_uri(self.also, self.run, name, digest)


def push_all(root: Root) -> None:
    """Raises StoreError, OSError; what was pushed until then is on record. What fails with one
    seal is raised when all others were tried, but for a server that is busy for all of them."""
    aim = Aim.read(root)
    bucket, told = aim.open(root, STREAMS), _Told(root, aim.bytes_per_s)
    failed: Dict[Path, Exception] = {}
    while True:
        failed.update(_give_up_unreadable(root))
        seal = next((each for each in _waiting(root) if each.folder not in failed), None)
        if seal is None:
            break
        uri = aim.uri(seal.name, seal.manifest.digest)
        push = Push(bucket, seal, split_uri(uri)[1], told.sent)
        try:
            _push_one(push, seal, uri)
        except (Busy, Closed):
            raise
        except (StoreError, OSError) as error:
            failed[seal.folder] = error
    _abandon_given_up(root, aim, bucket)
    for each in failed.values():
        raise each


def _push_one(push: Push, seal: Seal, uri: str) -> None:
    what = {"name": seal.name, "generation": seal.generation, "digest": seal.manifest.digest}
    try:
        push.run()
    except (Changed, FileNotFoundError) as error:
        _note(seal.folder, "unpushed", why="it is not what was sealed any more: %s" % error)
    else:
        _note(seal.folder, "pushed", uri=uri, **what)
        (seal.folder / "uploads.json").unlink(missing_ok=True)


def _waiting(root: Root) -> Iterator[Seal]:
    """What is not pushed yet: final weights before all, then the newest."""
    found = [seal for seal in load_seals(root.seals) if seal.is_held]
    found = [seal for seal in reversed(found) if not is_settled(seal.folder)]
    yield from sorted(found, key=lambda seal: not seal.manifest.meta.get("final"))


def _give_up_unreadable(root: Root) -> Dict[Path, Exception]:
    """Seals of which nobody can tell what to push; those that a disk does not give are returned,
    for it may give them later."""
    found = load_unreadable(root.seals)
    for folder, why in found.items():
        if isinstance(why, ContractError) and not is_settled(folder):
            _note(folder, "unpushed", why="what it holds cannot be read: %s" % why)
    return {folder: why for folder, why in found.items() if isinstance(why, OSError)}


def _abandon_given_up(root: Root, aim: Aim, bucket: Bucket) -> None:
    """By us, or by the agent for want of room: no upload is left to bill."""
    for seal in load_seals(root.seals):
        uploads = seal.folder / "uploads.json"
        if uploads.exists() and (seal.folder / "unpushed").exists():
            base = split_uri(aim.uri(seal.name, seal.manifest.digest))[1]
            Push(bucket, seal, base, lambda name, size: None).abandon()
            uploads.unlink()


def _note(folder: Path, word: str, **more: object) -> None:
    write_json(folder / word, {"v": PROTOCOL, "at": utc_now(), **more})


class _Told:
    """Says how much was sent, in a file that the agent reads, and keeps the pace."""

    def __init__(self, root: Root, bytes_per_s: Optional[float]) -> None:
        self._path = root.push_state
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._total = 0
        self._free_at = self._written_at = float("-inf")

    def sent(self, name: str, size: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._total += size
            if now - self._written_at >= REPORT_S:
                self._written_at = now
                record = {"v": PROTOCOL, "name": name, "sent": self._total}
                write_json(self._path, record, durable=False)
            wait_s = max(0.0, self._free_at - now)
            if self._bytes_per_s:
                self._free_at = max(self._free_at, now) + size / self._bytes_per_s
        if wait_s:
            time.sleep(wait_s)
