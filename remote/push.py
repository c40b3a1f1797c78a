"""Pushes what the agent has sealed to S3, and brings one back: a program of its own, because it
needs boto3, which the agent does not have. Killed at any moment, the next one goes on."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from typing import Dict, NoReturn

from remote.agent.durable import read_json, utc_now, write_json
from remote.agent.locks import is_free, locked
from remote.agent.paths import Root
from remote.agent.pusher import BUSY
from remote.contract import PROTOCOL, ContractError, split_uri
from remote.outbox import Aim, push_all
from remote.restoring import restore
from remote.s3 import StoreError

RESTORE_STREAMS = 8
NICE = 10
WATCH_S = 10.0


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
    with locked(root.push_lock) as mine:
        if not mine:
            return BUSY
        try:
            push_all(root)
        except (StoreError, ContractError, OSError) as error:
            write_json(root.push_failed, {"v": PROTOCOL, "at": utc_now(), "message": str(error)})
            return 1
    return 0


def _restore(root: Root, options: argparse.Namespace) -> int:
    """See to it that a process of its own restores, watch it for a moment, and print how far it
    is: whoever asks may lose the connection and ask again."""
    state, asked = root.restore, _asked(options)
    record = read_json(state) or {}
    is_news = _is_of(record, asked) and record.get("state") != "running" and not record.get("told")
    if not is_news and is_free(root.restore_lock):
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
    state, asked = root.restore, _asked(options)

    def tell(word: str, size: int, **more: str) -> None:
        write_json(state, {"v": PROTOCOL, **asked, "state": word, "bytes": size, **more})

    with locked(root.restore_lock) as mine:
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


def _end_with(parent: int) -> None:
    """The agent's next life starts another one: two would only be in each other's way."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(BUSY)


if __name__ == "__main__":
    main()
