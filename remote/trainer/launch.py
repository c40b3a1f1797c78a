"""`python -m remote.trainer.launch --ranks N TRAIN.json`: the ranks of one machine.

torchrun and the deepspeed launcher do this too, and do three things a checkpoint cannot afford:
on SIGTERM they kill a rank that is still saving after 30 s, they report 1 for every exit code,
and torchrun leaves a folder in /tmp each time. This one imports no torch, so it starts at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from remote.trainer.setup import free_port

GRACE_S = 20.0
POLL_S = 0.05


def main() -> int:
    options, rest = _options()
    asked: list[int] = []  # filled before the ranks start: no signal may pass them by
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: asked.append(received))
    ranks = start(options.ranks, [sys.executable, "-u", "-m", "remote.trainer", *rest])
    return wait(ranks, asked=asked)


def start(count: int, command: Sequence[str]) -> list[subprocess.Popen[bytes]]:
    """Start `command` once a rank, in this process's group, with what torch.distributed reads."""
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    own = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count))
    return [subprocess.Popen(command, env={**os.environ, **shared, **each}) for each in own]


def wait(
    ranks: Sequence[subprocess.Popen[bytes]],
    *,
    asked: list[int] | None = None,
    grace_s: float = GRACE_S,
) -> int:
    """Wait for all; return the first failure's code (128 + n for signal n), else 0.

    Signals that appear in `asked` are passed on. It may take however long while none has failed;
    when one has, the others wait for it in a collective: they get `grace_s` and are then killed.
    """
    failed_at, code = None, 0
    while any(rank.poll() is None for rank in ranks):
        while asked:
            _send(ranks, asked.pop(0))
        if failed_at is None and (code := _failure(ranks)):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > grace_s:
            _send(ranks, signal.SIGKILL)
        time.sleep(POLL_S)
    return code or _failure(ranks)


def _failure(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    for rank in ranks:
        if rank.returncode:
            return 128 - rank.returncode if rank.returncode < 0 else rank.returncode
    return 0


def _send(ranks: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for rank in ranks:
        rank.send_signal(number)  # which leaves an ended one alone


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m remote.trainer.launch", description=__doc__)
    parser.add_argument("--ranks", type=int, required=True, help="processes, one a GPU")
    options, rest = parser.parse_known_args()
    if options.ranks < 1:
        parser.error("--ranks must be at least 1")
    return options, rest


if __name__ == "__main__":
    sys.exit(main())
