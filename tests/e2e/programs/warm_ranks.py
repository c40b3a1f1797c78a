"""Ranks that start at once: a process that has imported everything forks them on request.

One JSON line a request on standard input (`ranks cwd env argv log rc`); its answer is the pid of
a process that stands for the launcher. That one writes the exit code to `rc` when it ends by
itself. A rank is a process like any other, and runs `remote.trainer`'s own main."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import transformers.models.llama.modeling_llama  # noqa: F401

from remote.trainer import engine_deepspeed, launch, run, setup  # noqa: F401
from remote.trainer.__main__ import main as train


class Forked:
    """A child, with what `launch.wait` wants of a process."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def main() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _launcher(json.loads(line))
        print(pid, flush=True)


def _launcher(request: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda received, _: asked.append(received))
    os.chdir(request["cwd"])
    _write_to(request["log"])
    os.environ.clear()
    os.environ.update(request["env"])
    code = launch.wait(_ranks(request), asked=asked)
    temporary = Path(f"{request['rc']}.new")
    temporary.write_text(str(code))
    temporary.replace(request["rc"])
    os._exit(0)


def _ranks(request: dict[str, Any]) -> list[Any]:
    count = request["ranks"]
    if count == 1:
        return [Forked(os.fork() or _rank(request["argv"], {}))]
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(setup.free_port())}
    own = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return [Forked(os.fork() or _rank(request["argv"], shared | each)) for each in own]


def _rank(argv: list[str], environment: dict[str, str]) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # torch makes its thread pool anew after a fork, at first use: where two threads use it first
    # (transformers reads weights in several), one finds none ("Invalid thread pool!").
    torch.set_num_threads(1)
    os.environ.update(environment)
    sys.argv = ["remote.trainer", *argv]
    code = 1
    try:
        code = train()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _write_to(log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, descriptor), (2, descriptor)):
        os.dup2(source, number)


if __name__ == "__main__":
    main()
