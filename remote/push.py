"""Pushes what the agent has sealed to S3, and brings one back: a program of its own, because it
needs boto3, which the agent does not have. Killed at any moment, the next one goes on."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Dict, Iterator, NoReturn, Optional

from remote.agent.durable import read_json, utc_now, write_json
from remote.agent.paths import Root
from remote.agent.pusher import BUSY, is_settled
from remote.agent.seal import Seal, load_seals
from remote.contract import PROTOCOL, ContractError, pushed_uri, split_uri
from remote.pushing import Changed, Push
from remote.restoring import restore
from remote.s3 import Bucket, Denied, Server, StoreError, read_keys

STREAMS = 4
RESTORE_STREAMS = 8
NICE = 10
REPORT_S = 1.0
WATCH_S = 10.0


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


def main() -> NoReturn:
    """Run the command of argv and exit: 0 done, 75 another one is at it, 1 failed."""
    options = _parser().parse_args()
    sys.exit(options.run(Root.at(options.root), options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="push", description=__doc__)
    commands = parser.add_subparsers(required=True)
    pushing = commands.add_parser("push")
    pushing.add_argument("--parent", type=int, required=True)
    pushing.set_defaults(run=_push)
    for name, run in (("restore", _restore), ("restore-alone", _restore_alone)):
        restoring = commands.add_parser(name)
        for word in ("--name", "--digest", "--dest"):
            restoring.add_argument(word, required=True)
        restoring.set_defaults(run=run)
    for each in commands.choices.values():
        each.add_argument("--root", required=True)
    return parser


def _push(root: Root, options: argparse.Namespace) -> int:
    """Push all that waits. What stops it is left in `push.failed`."""
    _end_with(options.parent)
    os.nice(NICE)
    with _locked(root, "push.lock") as mine:
        if not mine:
            return BUSY
        try:
            push_all(root)
        except (StoreError, ContractError, OSError) as error:
            write_json(root.push_failed, {"v": PROTOCOL, "at": utc_now(), "message": str(error)})
            return 1
    return 0


def push_all(root: Root) -> None:
    """Raises StoreError, OSError; what was pushed until then is on record."""
    aim = Aim.read(root)
    bucket, told = aim.open(root, STREAMS), _Told(root, aim.bytes_per_s)
    while True:
        seal = next(_waiting(root), None)
        if seal is None:
            return
        uri = aim.uri(seal.name, seal.manifest.digest)
        try:
            Push(bucket, seal, split_uri(uri)[1], told.sent).run()
        except (Changed, FileNotFoundError) as error:
            _note(seal, "unpushed", why="it is not what was sealed any more: %s" % error)
        else:
            _note(seal, "pushed", uri=uri)


def _waiting(root: Root) -> Iterator[Seal]:
    """What is not pushed yet: final weights before all, then the newest."""
    found = [seal for seal in load_seals(root.seals) if seal.is_held]
    found = [seal for seal in reversed(found) if not is_settled(seal.folder)]
    yield from sorted(found, key=lambda seal: not seal.manifest.meta.get("final"))


def _note(seal: Seal, word: str, **more: str) -> None:
    what = {"name": seal.name, "generation": seal.generation, "digest": seal.manifest.digest}
    write_json(seal.folder / word, {"v": PROTOCOL, "at": utc_now(), **what, **more})
    (seal.folder / "uploads.json").unlink(missing_ok=True)


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


def _restore(root: Root, options: argparse.Namespace) -> int:
    """See to it that a process of its own restores, watch it for a moment, and print how far it
    is: whoever asks may lose the connection and ask again."""
    state, asked = root.path / "restore.json", _asked(options)
    record = read_json(state) or {}
    is_news = _is_of(record, asked) and record.get("state") != "running" and not record.get("told")
    if not is_news and _is_free(root, "restore.lock"):
        record = {"v": PROTOCOL, **asked, "state": "running", "bytes": 0}
        write_json(state, record)
        _start_alone(root, options)
    deadline = time.monotonic() + WATCH_S
    while record.get("state") == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
        record = read_json(state) or {}
    if record.get("state") != "running":
        write_json(state, {**record, "told": True})
    sys.stdout.write(json.dumps(record) + "\n")
    return 0


def _start_alone(root: Root, options: argparse.Namespace) -> None:
    words = ["--name", options.name, "--digest", options.digest, "--dest", options.dest]
    command = [sys.executable, "-m", "remote.push", "restore-alone", *words]
    log = os.open(root.agent_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        subprocess.Popen(
            [*command, "--root", str(root.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _restore_alone(root: Root, options: argparse.Namespace) -> int:
    state, asked = root.path / "restore.json", _asked(options)

    def tell(word: str, size: int, **more: str) -> None:
        write_json(state, {"v": PROTOCOL, **asked, "state": word, "bytes": size, **more})

    with _locked(root, "restore.lock") as mine:
        if not mine:
            return BUSY
        try:
            aim = Aim.read(root)
            base = split_uri(aim.uri(options.name, options.digest))[1]
            bucket = aim.open(root, RESTORE_STREAMS)
            size = restore(
                bucket, base, options.digest, options.dest, lambda done: tell("running", done)
            )
        except Exception as error:  # whatever it is, somebody waits for the word
            tell("failed", 0, kind=type(error).__name__, message=str(error)[:500])
            return 1
        tell("done", size)
    return 0


def _asked(options: argparse.Namespace) -> Dict[str, str]:
    return {"name": options.name, "digest": options.digest, "dest": options.dest}


def _is_of(record: Dict[str, object], asked: Dict[str, str]) -> bool:
    return all(record.get(key) == value for key, value in asked.items())


@contextlib.contextmanager
def _locked(root: Root, name: str) -> Iterator[bool]:
    """Whether the lock is ours meanwhile."""
    lock = os.open(root.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _try_lock(lock)
    finally:
        os.close(lock)


def _is_free(root: Root, name: str) -> bool:
    with _locked(root, name) as mine:
        return mine


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_with(parent: int) -> None:
    """The agent's next life starts another one: two would only be in each other's way."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(BUSY)


if __name__ == "__main__":
    main()
